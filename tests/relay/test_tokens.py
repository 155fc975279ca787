"""Admission tokens: where they come from, and how they are shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from relay.access import AccessError
from relay.opening import Opening
from relay.settings import Settings
from relay.tokens import Shown, Tokens, TokenSource, Way, offers, parse_tokens, shown, token_source

ONE, TWO = "0123456789abcdef", "~an.other_token-with-more~"


def opening(query: str = "", **headers: str) -> Opening:
    return Opening("/ws", query, {name.replace("_", "-"): value for name, value in headers.items()})


# --- Shown -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (opening(), None),
        (opening(authorization=f"Bearer {ONE}"), Shown(ONE, Way.AUTHORIZATION)),
        (opening(authorization=f"bearer   {ONE} "), Shown(ONE, Way.AUTHORIZATION)),
        (opening(authorization="Basic eDp5"), None),
        (opening(authorization=ONE), None),
        (opening(sec_websocket_protocol=f"blindrelay, token.{ONE}"), Shown(ONE, Way.SUBPROTOCOL)),
        (opening(sec_websocket_protocol=f"token.{ONE},blindrelay"), Shown(ONE, Way.SUBPROTOCOL)),
        (opening(sec_websocket_protocol="blindrelay"), None),
        (opening(f"token={ONE}"), Shown(ONE, Way.QUERY)),
        (opening(f"v=2&token={ONE}&x"), Shown(ONE, Way.QUERY)),
        (opening("token=a%62c"), Shown("abc", Way.QUERY)),
        (opening("token="), None),
        (opening(f"mytoken={ONE}"), None),
        (opening(f"token={TWO}", authorization=f"Bearer {ONE}"), Shown(ONE, Way.AUTHORIZATION)),
        (opening(f"token={TWO}", sec_websocket_protocol=f"token.{ONE}"), Shown(ONE, Way.SUBPROTOCOL)),
    ],
)
def test_how_a_token_is_shown(asked: Opening, found: Shown | None) -> None:
    assert shown(asked) == found


def test_offers() -> None:
    assert offers(opening()) == []
    assert offers(opening(sec_websocket_protocol="a,\tb , c")) == ["a", "b", "c"]


# --- Compared --------------------------------------------------------------------------------------------------------


def test_several_are_valid_at_once() -> None:
    tokens = Tokens([ONE, TWO, ONE])
    assert len(tokens) == 2
    assert tokens.valid(ONE)
    assert tokens.valid(TWO)
    for wrong in ("", ONE[:-1], ONE + "0", ONE.upper(), "ü", "\udcff"):
        assert not tokens.valid(wrong), wrong


def test_what_is_kept_is_no_token() -> None:
    kept = repr(vars(Tokens([ONE])))
    assert ONE not in kept
    assert ONE.encode().hex() not in kept


# --- Read ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["short", "x" * 15, "x" * 129, "with space 12345", "with/slash/12345", "ключ" * 5])
def test_what_is_no_token_is_told_by_its_line_and_not_shown(wrong: str) -> None:
    with pytest.raises(AccessError) as caught:
        parse_tokens(f"# ours\n{ONE}\n{wrong}\n", "tokens")
    assert str(caught.value).startswith("tokens, line 3: ")
    assert "openssl rand" in str(caught.value)
    assert wrong not in str(caught.value)
    assert ONE not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n \n", "# later\n"])
def test_no_tokens_at_all_would_keep_everybody_out(text: str) -> None:
    with pytest.raises(AccessError, match="nobody could connect"):
        parse_tokens(text, "tokens")


def source_of(file: Path | None, token: str | None) -> TokenSource | None:
    settings = Settings(port=0, drain=0, token_file=file, token=None if token is None else SecretStr(token))
    return token_source(settings)


def test_the_variable_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    assert source_of(None, None) is None
    assert source_of(None, f"{ONE} {TWO}") == TokenSource(None, f"{ONE} {TWO}")
    source = source_of(path, ONE)
    assert source is not None
    with pytest.raises(AccessError, match=r"no token file .*tokens.* 0600"):
        source.read()
    path.write_text(f"{TWO}\n")
    path.chmod(0o644)
    with pytest.raises(AccessError, match="chmod 600"):
        source.read()
    path.chmod(0o600)
    assert source.read() == [ONE, TWO]
    assert TokenSource(path, None).read() == [TWO]
    assert TokenSource(None, f" {ONE}\n{TWO} ").read() == [ONE, TWO]


def test_an_empty_variable_is_no_open_door() -> None:
    source = source_of(None, "")
    assert source is not None
    with pytest.raises(AccessError, match=r"^token holds no token"):
        source.read()


def test_a_setting_with_what_is_no_token_is_told_by_the_word_whatever_source_it_had() -> None:
    with pytest.raises(AccessError, match=r"^token, word 2: this cannot be a token") as caught:
        TokenSource(None, f"{ONE} short {TWO}").read()
    assert "short" not in str(caught.value)


def test_a_path_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"^cannot read .*: File name too long$"):
        TokenSource(tmp_path / ("x" * 300), None).read()


ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@given(ascii_text | ascii_text.map("token=".__add__), ascii_text, ascii_text | ascii_text.map("Bearer ".__add__))
def test_whatever_is_shown_is_a_token_or_none(query: str, protocols: str, authorization: str) -> None:
    found = shown(opening(query, sec_websocket_protocol=protocols, authorization=authorization))
    assert found is None or not Tokens([ONE]).valid(found.token + "!")
    assert (found is not None) or not authorization.lower().startswith("bearer ")
