"""The log of what an agent did."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import stat
from typing import TYPE_CHECKING

import pytest

from peers.chat.agent.audit import KEPT, NAME, Audit, AuditFailed
from tests.support.clients import run_async

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def there(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@run_async
async def test_lines(tmp_path: Path) -> None:
    path = tmp_path / NAME
    before = os.umask(0)
    try:
        audit = Audit(path, "a\nb", texts=False)
        await audit.write(1_700_000_000_123, "send_message", "done", label="Bob\n\x1b[31m", bytes=3)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().isascii()
    assert lines(path) == [
        {
            "at": "2023-11-14T22:13:20.123Z",
            "agent": "a\nb",
            "tool": "send_message",
            "outcome": "done",
            "label": "Bob\n\x1b[31m",
            "bytes": 3,
        }
    ]


@run_async
async def test_put_aside(tmp_path: Path) -> None:
    path = tmp_path / NAME
    audit = Audit(path, "agent", texts=False, size=1000)
    for number in range(200):
        await audit.write(number, "tool", "done", number=number)
    files = there(tmp_path)
    assert [file.name for file in files] == [NAME, *(f"{NAME}.{n}" for n in range(1, KEPT + 1))]
    assert all(file.stat().st_size <= 1000 for file in files)
    numbers = [record["number"] for file in [*files[:0:-1], files[0]] for record in lines(file)]
    assert numbers == list(range(200 - len(numbers), 200))


def _write(path: Path, who: int) -> None:
    async def run() -> None:
        audit = Audit(path, str(who), texts=False, size=20_000)
        for number in range(100):
            await audit.write(0, "tool", "done", number=number)

    asyncio.run(run())


def test_several_processes(tmp_path: Path) -> None:
    """No line is lost or torn, also where one of them puts the file aside while others write."""
    path = tmp_path / NAME
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_write, args=(path, who)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = [(record["agent"], record["number"]) for file in tmp_path.iterdir() for record in lines(file)]
    assert sorted(found, key=str) == sorted(((str(who), n) for who in range(4) for n in range(100)), key=str)
    assert len(list(tmp_path.iterdir())) > 1


@run_async
async def test_a_link_in_its_place(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditFailed, match="cannot write"):
        await Audit(tmp_path / NAME, "agent", texts=False).write(0, "tool", "done")
    assert not (tmp_path / "elsewhere").exists()


@run_async
async def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(AuditFailed, match="No such file"):
        await Audit(tmp_path / "gone" / NAME, "agent", texts=False).write(0, "tool", "done")
