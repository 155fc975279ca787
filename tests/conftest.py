from __future__ import annotations

import fcntl
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.relay_process import RelayProcess

pytest_plugins = ["pytester", "tests.support.needs"]

ROOT = Path(__file__).resolve().parent.parent
_HANDLERS: dict[signal.Signals, Any] = {}


def pytest_configure() -> None:
    # A shell without job control starts what it puts in the background with SIGINT ignored, and nohup(1) does so with
    # SIGHUP. What the tests start would inherit that, and heed no such signal of theirs; a handler is not inherited.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    _HANDLERS.update({number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "node_ws" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs("node", "npm"))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    # What a program under test set up would outlive its test: logging would write to a standard error that is closed by
    # then, and signals that it ignored at its end would be ignored by all that later tests start.
    structlog.reset_defaults()
    for number, handler in _HANDLERS.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with the default limits, for all tests of a module."""
    from tests.support.relay_process import running_relay

    with running_relay(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture(scope="session")
def node_ws() -> Path:
    """The directory in which `node` finds the pinned WebSocket client; run scripts with it as the working directory.

    `npm ci` fills it when package-lock.json changed since it last did. A test that uses this fixture carries the mark
    needs("node", "npm") without saying so.
    """
    directory = ROOT / "tests" / "interop" / "node"
    lock = directory / "package-lock.json"
    stamp = directory / "node_modules" / ".blindrelay-installed"  # npm ci removes node_modules, and it, first
    with lock.open("rb") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # two test runs at once
        wanted = lock_file.read()
        if not stamp.is_file() or stamp.read_bytes() != wanted:
            done = subprocess.run(
                ["npm", "ci"], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.fail(f"npm ci in {directory} failed:\n{done.stdout}{done.stderr}", pytrace=False)
            stamp.write_bytes(wanted)
    return directory
