"""PROTOCOL.md says what the code says: codes, sizes, limits, states and reasons, row by row and both ways."""

from __future__ import annotations

import ast
import re
import resource
from collections import Counter
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.frames import CloseCode

import keys.identity
import keys.invite
import keys.packet
import keys.primitives
import wire.limits
from relay import claims, drain, limits, reasons
from tests.docs import markdown
from wire import commands, peer_commands
from wire.errors import BadBody
from wire.session import TRANSITIONS

if TYPE_CHECKING:
    from enum import IntEnum, StrEnum

PROTOCOL = (markdown.ROOT / "PROTOCOL.md").read_text()

_UNITS = {
    "": Fraction(1),
    "s": Fraction(1),
    "KiB": Fraction(1024),
    "MiB": Fraction(1024**2),
}


def number(cell: str) -> Fraction:
    """Read `1,048,576`, `16 KiB`, `10 s`, `0.004 s`, `1/60`."""
    match = re.fullmatch(r"([\d,.]+(?:/\d+)?)(?: (s|KiB|MiB))?", cell)
    assert match is not None, f"no number: {cell}"
    return Fraction(match[1].replace(",", "")) * _UNITS[match[2] or ""]


def same(cell: str, value: float) -> bool:
    """Tell whether a cell is exactly this value: a float is compared as the float that the cell would give."""
    told = number(cell)
    return float(told) == value if isinstance(value, float) else told == value


def table(*header: str) -> list[dict[str, str]]:
    found = markdown.rows(PROTOCOL, *header)
    assert found, f"no table with the columns {header}"
    return found


def names(rows: list[dict[str, str]], column: str) -> list[str]:
    """Return the names of a column, none twice."""
    found = [markdown.code(row[column]) for row in rows]
    assert [name for name, count in Counter(found).items() if count > 1] == []
    return found


# --- Sections ---------------------------------------------------------------------------------------------------------


def test_the_code_refers_to_sections_that_exist() -> None:
    numbers = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", PROTOCOL, re.MULTILINE))
    assert {str(number) for number in range(1, 13)} <= numbers
    referred: dict[str, str] = {}
    for package in ("keys", "wire", "relay", "tests"):
        for path in sorted((markdown.ROOT / package).rglob("*.py")):
            for found in re.findall(r"PROTOCOL\.md ((?:,? ?§[\d.]*\d)+)", path.read_text()):
                for section in re.findall(r"§([\d.]*\d)", found):
                    referred[section] = str(path)
    assert {"4", "6.1", "8.3", "8.4"} <= referred.keys()
    assert {section: path for section, path in referred.items() if section not in numbers} == {}


def test_the_document_refers_to_its_own_sections() -> None:
    numbers = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", PROTOCOL, re.MULTILINE))
    prose = re.sub(r"RFC \d+ §[\d.]*\d", "", PROTOCOL)
    assert set(re.findall(r"(?<!RFC )§([\d.]*\d)", prose)) <= numbers


# --- Sizes and limits -------------------------------------------------------------------------------------------------


def test_sizes_of_keys_and_packets() -> None:
    modules = (keys.primitives, keys.identity, keys.packet, keys.invite)
    rows = table("size", "bytes")
    told = dict(zip(names(rows, "size"), (row["bytes"] for row in rows), strict=True))
    assert set(told) == {
        "ID_SIZE",
        "KEY_SIZE",
        "NONCE_SIZE",
        "TAG_SIZE",
        "SIGNATURE_SIZE",
        "OVERHEAD",
        "NICKNAME_MAX",
        "URL_MAX",
    }
    for name, cell in told.items():
        (value,) = {getattr(module, name) for module in modules if hasattr(module, name)}
        assert number(cell) == value, name


def assigned(module: str) -> list[str]:
    """Return the constants that a module itself makes."""
    tree = ast.parse(Path(module).read_text())
    targets = [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]


def test_sizes_of_the_protocol() -> None:
    rows = table("constant", "value", "of what")
    told = names(rows, "constant")
    assert told == assigned(wire.limits.__file__)
    for name, row in zip(told, rows, strict=True):
        assert number(row["value"]) == getattr(wire.limits, name), name


def test_limits_of_the_relay() -> None:
    rows = table("limit", "default", "why")
    told = names(rows, "limit")
    assert told == [field.name for field in fields(limits.Limits)]
    defaults = limits.Limits()
    wrong = {
        name: row["default"]
        for name, row in zip(told, rows, strict=True)
        if name not in _OF_THE_MACHINE and not same(row["default"], getattr(defaults, name))
    }
    assert wrong == {}


_OF_THE_MACHINE = {"queue_total", "connections", "connections_per_address", "subscriptions_total"}


def machine_default(name: str) -> str:
    (cell,) = (row["default"] for row in table("limit", "default", "why") if row["limit"] == f"`{name}`")
    return cell


@pytest.mark.parametrize("files", [1024, 4096, 20_000, 524_288, 1 << 30, resource.RLIM_INFINITY])
def test_the_defaults_that_depend_on_open_files(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, files))
    match = re.fullmatch(r"open files less (\d+), at most ([\d,]+)", machine_default("connections"))
    assert match is not None
    most = number(match[2])
    told = most if files == resource.RLIM_INFINITY else min(most, files - number(match[1]))
    assert told == limits.default_connections()
    match = re.fullmatch(
        r"([\d,]+), or (\d/\d) of the default of `connections`", machine_default("connections_per_address")
    )
    assert match is not None
    assert min(number(match[1]), told * number(match[2]) // 1) == limits.default_connections_per_address()


@pytest.mark.parametrize("mebibytes", [8, 200, 512, 1024, 4096])
def test_the_default_of_subscriptions(mebibytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = r"(\d/\d) of memory by (\d+) bytes each, at least ([\d,]+)"
    match = re.fullmatch(pattern, machine_default("subscriptions_total"))
    assert match is not None
    memory = mebibytes * limits.MIB
    monkeypatch.setattr(limits, "available_memory", lambda: memory)
    told = max(number(match[3]), memory * number(match[1]) // number(match[2]))
    assert told == limits.default_total_subscriptions()


@pytest.mark.parametrize("mebibytes", [8, 200, 512, 1024, 4096])
def test_the_default_that_depends_on_the_machine(mebibytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    match = re.fullmatch(r"(\d+ MiB), or (\d+/\d+) of memory, at least (\d+ MiB)", machine_default("queue_total"))
    assert match is not None
    memory = mebibytes * limits.MIB
    monkeypatch.setattr(limits, "available_memory", lambda: memory)
    told = max(number(match[3]), min(number(match[1]), memory * Fraction(match[2])))
    assert told == limits.default_total_queue()


def test_relations_between_limits_hold_as_told() -> None:
    told = {
        (markdown.code(row["limit"]), more)
        for row in table("limit", "default", "why")
        for more in re.findall(r"not more than `(\w+)`", row["why"])
    }
    refused = set()
    defaults = limits.Limits()
    for less in told:
        with pytest.raises(ValueError, match=f"{less[0]} is more than {less[1]}"):
            limits.Limits(**{less[0]: getattr(defaults, less[1]) + 1})
        refused.add(less)
    source = Path(limits.__file__).read_text()
    pairs = re.findall(r'^ +\("(\w+)", "(\w+)"\),$', source, re.MULTILINE)
    assert refused == set(pairs)


def test_what_the_prose_repeats_of_limits() -> None:
    """A figure before the name of its limit in parentheses, as in "10 s (`opening_deadline`)", is the default."""
    prose = re.sub(r"\s+", " ", PROTOCOL.replace(PROTOCOL[PROTOCOL.index("### 9.2 ") : PROTOCOL.index("## 10. ")], ""))
    named = re.findall(r"\(`([a-z]\w+)`\)", prose)
    figure = r"(?<![\w.])(\d[\d,./]*(?: (?:s|KiB|MiB)\b)?)(?: [a-z]+){0,5} \(`([a-z]\w+)`\)"
    found = re.findall(figure, prose)
    assert len(found) >= 30
    assert sorted(name for _, name in found) == sorted(named)
    defaults = limits.Limits()
    assert [(cell, name) for cell, name in found if not same(cell, getattr(defaults, name))] == []
    assert f"drawn from {drain._RECONNECT_MS[0]} to {drain._RECONNECT_MS[1] - 1:,} " in prose


# --- Codes ------------------------------------------------------------------------------------------------------------


def test_command_codes() -> None:
    rows = table("code", "name", "way", "body")
    told = {row["name"]: int(markdown.code(row["code"]), 16) for row in rows}
    assert len(told) == len(rows)
    assert told == {command.name: command.value for command in commands.Command}
    assert [row["name"] for row in rows] == [command.name for command in commands.Command]


def test_peer_command_codes() -> None:
    rows = table("code", "name", "body")
    told = [(row["name"], int(markdown.code(row["code"]), 16)) for row in rows]
    assert told == [(command.name, command.value) for command in peer_commands.PeerCommand]


def known(parse: object, command: int) -> bool:
    assert callable(parse)
    try:
        return not isinstance(parse(command, b""), commands.Unknown)
    except BadBody:
        return True


@pytest.mark.parametrize("command", list(commands.Command), ids=lambda command: command.name)
def test_who_says_a_command(command: commands.Command) -> None:
    (way,) = (row["way"] for row in table("code", "name", "way", "body") if row["name"] == command.name)
    assert set(way.split(", ")) <= {"c→s", "s→c", "s→notifier"}
    assert ("c→s" in way) == known(commands.parse_from_client, command)
    assert ("s→" in way) == known(commands.parse_from_server, command)


def test_each_command_has_its_section() -> None:
    headed = set()
    for heading in re.findall(r"^### 7\.\d+ (.+)$", PROTOCOL, re.MULTILINE):
        headed |= {(name, int(code, 16)) for name, code in re.findall(r"([A-Z_]+) `(0x[0-9A-F]+)`", heading)}
    assert headed == {(command.name, command.value) for command in commands.Command}


@pytest.mark.parametrize(
    ("header", "enum"),
    [
        (("code", "error", "detail"), commands.ErrorCode),
        (("kind", "service"), commands.PushKind),
        (("type", "meaning"), commands.WakeType),
        (("reason", "name", "says"), peer_commands.CancelReason),
    ],
)
def test_small_codes(header: tuple[str, ...], enum: type[IntEnum]) -> None:
    rows = table(*header)
    told = {}
    for row in rows:
        name = re.match(r"[A-Z_0-9]+", row[header[1]])
        assert name is not None, row
        told[name[0]] = int(row[header[0]].strip("`"), 0)
    assert len(told) == len(rows)
    assert told == {member.name: member.value for member in enum}


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_transitions() -> None:
    told = [
        (row["role"], row["state"], row["step"], row["next state"])
        for row in table("role", "state", "step", "next state")
    ]
    real = [
        (role.value, state.value, step.value, following.value)
        for role, states in TRANSITIONS.items()
        for state, steps in states.items()
        for step, following in steps.items()
    ]
    assert sorted(told) == sorted(real)


def test_claims() -> None:
    rows = table("holder", "newcomer's full keys", "verdict")
    told = [(row["holder"], row["newcomer's full keys"], row["verdict"]) for row in rows]
    real = [
        (holder.value, "same" if same_keys else "other", verdict.value)
        for (holder, same_keys), verdict in claims.TABLE.items()
    ]
    assert sorted(told) == sorted(real)


# --- Reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "enum"),
    [(("refusal", "when", "answer"), reasons.Refusal), (("ending", "close code", "when"), reasons.Ending)],
)
def test_reasons(header: tuple[str, ...], enum: type[StrEnum]) -> None:
    assert names(table(*header), header[0]) == [reason.value for reason in enum]


def _attributes(call: ast.Call, of: str) -> set[str]:
    return {
        node.attr
        for argument in call.args
        for node in ast.walk(argument)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def closings() -> dict[str, set[int]]:
    """Return the close codes that the relay's calls give for each ending; a refused handshake goes by `_refuse`."""
    found: dict[str, set[int]] = {}
    for path in sorted((markdown.ROOT / "relay").glob("*.py")):
        tree = ast.parse(path.read_text())
        through = {
            code
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name == "_refuse"
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            for code in _attributes(call, "CloseCode")
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            codes = _attributes(call, "CloseCode")
            if isinstance(call.func, ast.Attribute) and call.func.attr == "_refuse":
                codes = through
            for ending in _attributes(call, "Ending"):
                found.setdefault(reasons.Ending[ending].value, set()).update(CloseCode[code].value for code in codes)
    return found


def test_close_codes() -> None:
    real = closings()
    assert len(real) >= 14
    for row in table("ending", "close code", "when"):
        ending, cell = markdown.code(row["ending"]), row["close code"]
        told = {int(cell)} if cell.isdigit() else set()
        assert told or cell in ("none", "HTTP", "RFC 6455", "as the client's"), ending
        assert told == real.get(ending, set()), ending
