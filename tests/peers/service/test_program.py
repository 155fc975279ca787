"""What the programs of services have in common: exit statuses, errors as lines, lines that are not said too often."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from keys.errors import KeyFileError
from peers.client import Connected, Disconnected, IdInUse, NotConnected, Reason
from peers.database import DatabaseFull
from peers.service.errors import BadSettings, BadValues, ServiceError, ServiceFailed
from peers.service.log import Seldom
from peers.service.program import run_program
from peers.service.relay_session import RelaySession
from tests.support.relay_process import ROOT


class Told(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServiceFailed("no"), 1),
        (NotConnected("no"), 1),
        (DatabaseFull("no"), 1),
        (Told("no"), 1),
        (ServiceError("no"), 2),
        (KeyFileError("no"), 2),
        (BadSettings(["no", "nor this"]), 2),
    ],
)
def test_an_error_is_told_and_has_a_status(error: Exception, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert run_program("a-program", work, Told) == status
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"a-program: {line}" for line in str(error).splitlines()]


def test_what_nobody_expects_is_not_hidden() -> None:
    def work() -> int:
        raise Told

    with pytest.raises(Told):
        run_program("a-program", work)


def test_what_the_work_returns_is_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert (run_program("a-program", lambda: 7), run_program("a-program", interrupted)) == (7, 130)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("peers.mailbox", "config", "template"), ("peers.notifier", "settings")], ids=str)
def test_a_reader_who_has_enough_is_no_failure_to_be_traced(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_event_is_said_once_a_minute() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    with capture_logs() as logs:
        for now in (0.0, 1.0, 59.9, 60.0, 61.0):
            seldom.error("full", at=now)
            seldom.error("other", at=now)
    assert [(record["event"], record["at"]) for record in logs] == [
        ("full", 0.0),
        ("other", 0.0),
        ("full", 60.0),
        ("other", 60.0),
    ]


def test_the_session_with_the_relay_is_known_counted_and_told() -> None:
    class Counts:
        def __init__(self) -> None:
            self.all: list[object] = []

        def connected(self) -> None:
            self.all.append("connected")

        def disconnected(self, reason: Reason) -> None:
            self.all.append(reason)

    counts = Counts()
    session = RelaySession("mailbox", counts)
    known = []
    with capture_logs() as logs:
        for event in (Connected(), IdInUse(), Disconnected(Reason.LOST, "gone", 1.23), IdInUse()):
            session.take(event)
            known.append(session.connected)
    assert known == [True, True, False, False]
    assert counts.all == ["connected", Reason.LOST]
    assert [record["event"] for record in logs] == ["connected", "id_in_use", "disconnected", "id_in_use"]
    assert "another mailbox runs with these keys" in logs[1]["advice"]
    assert (logs[2]["reason"], logs[2]["retry_in"]) == ("lost", 1.2)


def test_bad_values_name_themselves() -> None:
    error = BadValues("both or none", "certificate", "key")
    assert str(error) == "certificate, key: both or none"
