"""The registry of telefon's notifier, in the forms that it has had."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.notifier.errors import NotifierError
from peers.notifier.legacy import parse_registry, read_registry
from wire.limits import MAX_PUSH_TOKEN

if TYPE_CHECKING:
    from pathlib import Path

ID = bytes(range(1, 9))
OTHER = bytes.fromhex("fbffeedd00112233")
HEX = ID.hex()
SUBSCRIPTION = {"endpoint": "https://push.example/x", "keys": {"p256dh": "B", "auth": "a"}}
AS_TEXT = json.dumps(SUBSCRIPTION, separators=(",", ":")).encode()


def read(content: Any) -> list[tuple[bytes, int, bytes]]:
    found = parse_registry(content)
    assert found.problems == []
    return [(each.client_id, each.kind, each.token) for each in found.entries]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, []),
        ([], []),
        ({HEX: [{"kind": 1, "token": "t"}]}, [(ID, 1, b"t")]),
        ({HEX: [{"kind": 1, "token": "t"}, {"kind": 2, "token": "u"}]}, [(ID, 1, b"t"), (ID, 2, b"u")]),
        ({HEX: {"kind": 2, "token": "t"}}, [(ID, 2, b"t")]),
        ({HEX: "t"}, [(ID, 1, b"t")]),
        ({HEX.upper(): ["t", "u"]}, [(ID, 1, b"t"), (ID, 1, b"u")]),
        ({HEX: json.dumps(SUBSCRIPTION)}, [(ID, 2, json.dumps(SUBSCRIPTION).encode())]),
        ({HEX: SUBSCRIPTION}, [(ID, 2, AS_TEXT)]),
        ({HEX: [SUBSCRIPTION]}, [(ID, 2, AS_TEXT)]),
        ({HEX: {"type": "webpush", "subscription": SUBSCRIPTION}}, [(ID, 2, AS_TEXT)]),
        ({HEX: {"kind": "2", "token": SUBSCRIPTION}}, [(ID, 2, AS_TEXT)]),
        ({HEX: {"kind": "FCM", "token": "t"}}, [(ID, 1, b"t")]),
        ({HEX: {"kind": "Web-Push", "token": "t"}}, [(ID, 2, b"t")]),
        ({HEX: {"kind": "UNIFIED_PUSH", "token": "https://ntfy.example/x"}}, [(ID, 3, b"https://ntfy.example/x")]),
        ({HEX: {"devices": [{"kind": 4, "token": "ab"}]}}, [(ID, 4, b"ab")]),
        ({base64.b64encode(OTHER).decode(): "t"}, [(OTHER, 1, b"t")]),
        ({base64.urlsafe_b64encode(OTHER).decode().rstrip("="): "t"}, [(OTHER, 1, b"t")]),
        ([{"id": HEX, "kind": 1, "token": "t"}], [(ID, 1, b"t")]),
        ([{"client_id": HEX, "tokens": ["t", "u"]}], [(ID, 1, b"t"), (ID, 1, b"u")]),
        ({"version": 1, "tokens": {HEX: "t"}}, [(ID, 1, b"t")]),
        ({"registry": [{"id": HEX, "token": "t"}]}, [(ID, 1, b"t")]),
    ],
)
def test_forms(content: Any, expected: list[tuple[bytes, int, bytes]]) -> None:
    assert read(content) == expected


def test_what_cannot_be_read_is_named_by_its_place_and_not_repeated() -> None:
    found = parse_registry(
        {
            HEX: ["good", "", {"kind": 9, "token": "sEcReT"}, {"kind": True, "token": "sEcReT"}, None, {"kind": 1}],
            "sEcReT": "good",
            "00" * 8: "good",
            OTHER.hex(): "x" * (MAX_PUSH_TOKEN + 1),
            "02" * 8: "\ud800",
            "03" * 8: {"kind": 0, "token": "sEcReT"},
            "04" * 8: [[["sEcReT"]]],
            "05" * 8: "good",
        }
    )
    assert [each.client_id for each in found.entries] == [ID, b"\5" * 8]
    assert found.problems == [
        "entry 1, token 2: no token",
        "entry 1, token 3: a kind that nobody knows",
        "entry 1, token 4: a kind that nobody knows",
        "entry 1, token 5: no token",
        "entry 1, token 6: no token",
        "entry 2: no id of 8 bytes",
        "entry 3: no id of 8 bytes",
        "entry 4, token 1: a token of more than 4096 bytes",
        "entry 5, token 1: a token that is no text",
        "entry 6, token 1: a kind that nobody knows",
        "entry 7, token 1: no token",
    ]


def test_tokens_that_a_channel_cannot_use_are_named_too() -> None:
    def check(kind: int, token: bytes) -> None:
        if kind == 1 and token == b"bad":
            raise ValueError("not one of Google's")

    found = parse_registry({HEX: ["good", "bad"]}, check=check)
    assert found.problems == ["entry 1, token 2: not one of Google's"]
    assert len(found.entries) == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"3", b'"text"', b"null"])
def test_what_is_no_registry_at_all(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    path.write_bytes(content)
    with pytest.raises(NotifierError, match=r"registry\.json is no"):
        read_registry(path)
    assert path.read_bytes() == content


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotifierError, match="No such file"):
        read_registry(tmp_path / "registry.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([HEX, "kind", "endpoint"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                [HEX, "id", "kind", "token", "tokens", "registry", "endpoint", "subscription", "devices"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_read_or_refused(content: Any) -> None:
    try:
        found = parse_registry(content)
    except NotifierError:
        return
    for each in found.entries:
        assert len(each.client_id) == 8
        assert 1 <= each.kind <= 4
        assert 0 < len(each.token) <= MAX_PUSH_TOKEN
