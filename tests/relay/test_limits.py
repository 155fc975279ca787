"""The limits: defaults that work, and values that are refused."""

import resource
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import ValidationError

from relay import limits
from relay.limits import KIB, MIB, Limits, available_memory, default_total_queue

NAMES: Final = [field.name for field in fields(Limits)]
CAN_BE_OFF: Final = [name for name in NAMES if name.endswith("_per_second") or name in limits._CAN_BE_OFF]

make: Final[Callable[..., Limits]] = Limits


def refused(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        make(**values)
    return str(caught.value)


def test_the_defaults_are_valid_and_within_the_machine() -> None:
    standard = Limits()
    assert standard.queue_size <= standard.queue_total
    assert all(getattr(standard, name) > 0 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_default_can_be_given(name: str) -> None:
    assert make(**{name: getattr(Limits(), name)}) == Limits()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_negative(name: str) -> None:
    assert f"{name} is -1" in refused(**{name: -1})


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CAN_BE_OFF)))
def test_what_cannot_be_switched_off(name: str) -> None:
    assert f"{name} is 0" in refused(**{name: 0})


@pytest.mark.parametrize("name", CAN_BE_OFF)
def test_what_can_be_switched_off(name: str) -> None:
    assert getattr(make(**{name: 0}), name) == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", ["claim_wait", "bytes_per_second"])
def test_what_is_no_finite_number(name: str, value: str) -> None:
    assert f"{name} is {value}" in refused(**{name: value})


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("flush_size", "queue_size"),
        ("queue_share", "queue_size"),
        ("queue_size", "queue_total"),
        ("ping_after", "silent_after"),
    ],
)
def test_what_cannot_be_more_than_what(less: str, more: str) -> None:
    most = getattr(Limits(), more)
    assert make(**{less: most}) is not None
    text = refused(**{less: most + 1})
    assert less in text
    assert more in text


def test_an_unknown_limit() -> None:
    assert "no_such_limit" in refused(no_such_limit=1)


@pytest.mark.parametrize("value", ["many", "1.5", None, [1]])
def test_what_is_no_whole_number(value: object) -> None:
    assert "malformed" in refused(malformed=value)


def test_limits_do_not_change() -> None:
    name = "malformed"
    with pytest.raises(FrozenInstanceError):
        setattr(Limits(), name, 1)


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_a_container_that_has_less_than_the_machine(tmp_path: Path) -> None:
    cgroup = tmp_path / "memory.max"
    machine = available_memory(cgroup)
    assert machine > 0
    cgroup.write_text("max\n")
    assert available_memory(cgroup) == machine
    cgroup.write_text(f"{100 * MIB}\n")
    assert available_memory(cgroup) == 100 * MIB
    cgroup.write_text(f"{1 << 62}\n")
    assert available_memory(cgroup) == machine


@pytest.mark.parametrize(
    ("memory", "total"),
    [(10 * MIB, 16 * MIB), (100 * MIB, 25 * MIB), (1024 * MIB, 256 * MIB), (1 << 50, 256 * MIB)],
)
def test_the_total_is_a_quarter_of_the_memory_within_bounds(
    memory: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: memory)
    assert default_total_queue() == total
    assert total > 1024 * KIB


# --- Open files ------------------------------------------------------------------------------------------------------


def test_connections_need_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 1000))
    fits = Limits(connections=800, connections_spare=136)
    fits.check_files()
    assert fits.most_accepted == 936
    with pytest.raises(ValueError, match="may open 1000 files and needs 64 itself"):
        Limits(connections=801, connections_spare=136).check_files()


def test_without_a_bound_of_their_own_connections_are_bounded_by_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 1000))
    off = Limits(connections=0)
    assert off.most_accepted == 1000 - limits.FILES_KEPT
    off.check_files()


def test_where_there_are_hardly_any_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 100))
    assert limits.default_connections() == 16
    assert limits.default_connections_per_address() == 4
    with pytest.raises(ValueError, match="LimitNOFILE"):
        Limits(connections=0).check_files()
