"""Texts of the operator: what may be said, and how long."""

import base64

import pytest

from relay.about import MAX_LINK, check_link, check_vapid_key, text_checker


def test_a_text_is_given_back_as_it_is() -> None:
    for text in ("", "Ωμέγα & <b>", "👩‍👩‍👧 emoji with joiners", "x" * 10):
        assert text_checker(100)(text) == text


def test_a_text_may_be_as_long_as_is_said_and_no_longer() -> None:
    assert text_checker(10)("é" * 10)
    with pytest.raises(ValueError, match=r"11 characters: 10 are the most"):
        text_checker(10)("é" * 11)


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\udc80"])
def test_control_characters_are_named_and_not_repeated(character: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(character):04X}") as caught:
        text_checker(100)(f"a{character}b")
    assert character not in str(caught.value)


@pytest.mark.parametrize("link", ["", "https://relay.example/docs", "http://localhost:80/?a=b#c"])
def test_links(link: str) -> None:
    assert check_link(link) == link


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "relay.example", "//x", "https://", "https://a b", "https://" + "a" * MAX_LINK]
)
def test_what_is_no_link(link: str) -> None:
    with pytest.raises(ValueError, match="it h"):
        check_link(link)


POINT = base64.urlsafe_b64encode(b"\x04" + bytes(range(64))).rstrip(b"=").decode()


def test_a_vapid_key_is_an_uncompressed_point() -> None:
    assert check_vapid_key(POINT) == POINT
    assert check_vapid_key("") == ""


@pytest.mark.parametrize(
    "text",
    [
        POINT[:-1],
        POINT + "=",
        POINT + "A",
        POINT.replace("A", "+", 1),
        " " + POINT[1:],
        "A" * 87,  # begins with 0
        POINT[:-1] + "_",  # the bits that no byte has
        "é" * 87,
    ],
)
def test_what_is_no_vapid_key(text: str) -> None:
    with pytest.raises(ValueError, match="blindrelay-notifier keygen"):
        check_vapid_key(text)
