"""The fuzz target: a bounded run with atheris, the same doors under hypothesis, and proof that both would notice."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.wire_doors import DOORS, OPEN, PROVEN, SEEDS, one_input
from tests.property.wire_strategies import PATIENT, coded_bodies, plaintexts, some_bytes
from wire.errors import BadFrame

ROOT: Final = Path(__file__).parents[2]
RUNS: Final = 100_000
SECONDS: Final = 15
BOUNDS: Final = (f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-max_len=4300", "-len_control=0", "-seed=1")


def fuzz(corpus: Path, *, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the target in a process of its own: libFuzzer ends the one it runs in."""
    program = ["-m", "tests.fuzz.fuzz_wire"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *BOUNDS, f"-artifact_prefix={corpus.parent}/", str(corpus)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    directory = tmp_path / "corpus"
    directory.mkdir()
    names = list(DOORS)
    for at, (door, number, payload) in enumerate(SEEDS):
        (directory / f"seed-{at}").write_bytes(payload + bytes((number, names.index(door))))
    return directory


@pytest.mark.needs_module("atheris")
def test_a_bounded_run(corpus: Path) -> None:
    done = fuzz(corpus)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None, done.stderr
    assert int(runs[1]) > len(SEEDS)
    assert len(list(corpus.iterdir())) > len(SEEDS), "no input was worth keeping: nothing is instrumented"


# What a bug would look like: a parser that lets an error of Python's own out.
BROKEN: Final = """
import sys
import atheris
from tests.fuzz import fuzz_wire
from wire import commands

def broken(command, body):
    raise UnicodeError("a bug")

commands.parse_from_client = broken
atheris.Setup(sys.argv, fuzz_wire.one_buffer)
atheris.Fuzz()
"""


@pytest.mark.needs_module("atheris")
def test_a_run_that_finds_something_fails(corpus: Path) -> None:
    done = fuzz(corpus, code=BROKEN)
    assert done.returncode != 0
    assert "a bug" in done.stdout + done.stderr
    assert list(corpus.parent.glob("crash-*")), "the input is kept"


@pytest.mark.parametrize("door", DOORS)
@settings(PATIENT, max_examples=200)
@given(
    number=st.integers(0, 0xFF),
    payload=st.one_of(some_bytes, plaintexts, coded_bodies.map(lambda code_body: code_body[1])),
)
def test_the_same_doors_without_atheris(door: str, number: int, payload: bytes) -> None:
    one_input(door, number, payload)


@pytest.mark.parametrize(("door", "number", "payload"), SEEDS)
def test_every_seed_gives_a_value(door: str, number: int, payload: bytes) -> None:
    assert one_input(door, number, payload) is not None


def test_every_door_has_a_seed() -> None:
    assert {door for door, _, _ in SEEDS} == set(DOORS)


@pytest.mark.parametrize(
    ("door", "number", "parser"),
    [
        ("parse_inner", 0, "wire.inner.parse_inner"),
        ("parse_frame", 0, "wire.frames.parse_frame"),
        ("parse_from_client", 0x40, "wire.commands.parse_from_client"),
        ("parse_from_server", 0x42, "wire.commands.parse_from_server"),
        ("parse_handshake", 0, "wire.frames.parse_inner"),
        ("parse_handshake, after the key", 0, "wire.frames.open_introducing"),
        ("receive_hello, sealed", 0, "wire.frames.parse_inner"),
        ("open_command", PROVEN, "wire.frames.parse_inner"),
        ("open_command, sealed", PROVEN, "wire.commands.parse_from_client"),
        ("receive", OPEN, "wire.frames.parse_frame"),
        ("receive, sealed", OPEN, "wire.commands.parse_from_server"),
    ],
)
def test_each_door_leads_to_its_parser(door: str, number: int, parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed gets past what stands before the parser; what that raises is kept in only where it may be raised."""
    payload = next(payload for name, _, payload in SEEDS if name == door)
    for error in (BadFrame, UnicodeError):

        def broken(*_: object, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr(parser, broken)
        if error is BadFrame:
            assert one_input(door, number, payload) is None
        else:
            with pytest.raises(UnicodeError):
                one_input(door, number, payload)
