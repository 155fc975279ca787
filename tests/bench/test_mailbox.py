"""The mailbox's benchmark, at its smallest: it runs, loses nothing, and writes down what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    # A process of its own, for it stays on one core.
    command = [sys.executable, "-m", "bench.mailbox", "--items", "500", "--rounds", "1", "--seconds", "0.1"]
    command += ["--faces", "320"]
    done = subprocess.run(
        [*command, "--dir", str(tmp_path), "--json", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for store in ("empty", "full"):
        assert set(found[store]) == {
            "bare, 64 a commit",
            "bare, 1 a commit",
            "deposit",
            "fetch 1 + ack",
            "fetch 16 + ack",
        }
        assert all(rate > 0 for rates in found[store].values() for rate in rates)
    assert found["expiry"]["items"] == 500
    assert set(found["faces"]) == {"http", "relay"}
    for face in found["faces"].values():
        assert set(face) == {"deposit", "fetch 1 + ack", "fetch 16 + ack"}
        assert all(work["per second"] > 0 for work in face.values())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_it_runs_above_jetstream(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "bench.mailbox", "--store", "jetstream", "--no-overwrite", "--items", "200"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--seconds", "0.1", "--dir", str(tmp_path), "--json", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["delete"]
    for store in ("empty", "full"):
        assert set(found[store]) == {
            "bare, 64 publishers",
            "bare, 64 a batch",
            "deposit",
            "fetch 1 + ack",
            "fetch 16 + ack",
        }
        assert all(rate > 0 for rates in found[store].values() for rate in rates)
    assert found["expiry"]["items"] == 200
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_what_makes_no_sense() -> None:
    command = [sys.executable, "-m", "bench.mailbox", "--items", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "at least 64 items" in done.stderr
