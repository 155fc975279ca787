"""Any flags, variables and files give settings or BadSettings, and what cannot be used is never echoed as a secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.settings import NAMES, BadSettings, Settings, load_with_origins

_WORDS = st.sampled_from(
    [
        *(leaf.flag for leaf in list(NAMES.leaves.values())[:14]),
        *("--limits.queue-size=1", "--limits", "--no-port", "--", "-", "-h2", "=", "--=", "--port=", "true", "[1]"),
    ]
)  # fmt: skip
_KEYS = st.sampled_from([*Settings.model_fields, "limits.queue_size", "x25519_secret", "admin", ""])
_VALUES = st.recursive(
    st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | _KEYS, inner, max_size=3),
    max_leaves=6,
)


def check(arguments: list[str], environ: dict[str, str]) -> None:
    try:
        loaded = load_with_origins(arguments, {"HOME": "/nonexistent", **environ})
    except BadSettings as error:
        assert error.problems
        assert all(error.problems)
    except SystemExit as error:
        assert {"-h", "--help"} & set(arguments)
        assert error.code == 0
    else:
        assert isinstance(loaded.settings, Settings)


@given(
    st.lists(
        _WORDS | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), max_size=6
    )
)
def test_any_flags(arguments: list[str]) -> None:
    check(arguments, {})


@given(
    st.dictionaries(
        st.sampled_from([leaf.variable for leaf in NAMES.leaves.values()]) | st.text(max_size=6).map("RELAY_".__add__),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
        max_size=5,
    )
)
def test_any_variables(environ: dict[str, str]) -> None:
    check([], environ)


@settings(deadline=None)  # it reads files, on a machine that may be busy
@given(st.dictionaries(_KEYS | st.text(max_size=4), _VALUES, max_size=5))
def test_any_table(table: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "relay.toml"
        file.write_bytes(tomli_w.dumps(table).encode("utf-8", "surrogatepass"))
        check(["--config", str(file)], {})
        check(["--data-dir", directory], {})


@settings(deadline=None)  # it reads files, on a machine that may be busy
@given(st.binary(max_size=200))
def test_any_bytes_as_a_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "relay.toml").write_bytes(content)
        check(["--data-dir", directory], {})
