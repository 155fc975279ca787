import base64
import copy
import json
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keys.errors import BadInvite, BadKey
from keys.identity import Identity, PublicIdentity
from keys.invite import LINK_MAX, NICKNAME_MAX, URL_MAX, Invite, MailboxCard, RelayCard, display_name, encode_nickname
from tests.keys.known import (
    ALICE,
    BOB,
    LOW_ORDER_ED,
    LOW_ORDER_X,
    NOT_CANONICAL_ED,
    NOT_CANONICAL_X,
    NOTIFIER,
    ROOT,
    SERVER,
    VECTORS,
    unhex,
)

PLAIN = VECTORS["invite"]["alice_no_nick"]
NAMED = VECTORS["invite"]["alice_nick"]
NICK = VECTORS["invite"]["nick"]
URL = "wss://relay.example.org/ws"
CARD = RelayCard(SERVER.public, URL).text

BASE64URL = string.ascii_letters + string.digits + "-_"
NICKNAMES = st.text(st.characters(codec="utf-8"), max_size=64)
INVITES = st.builds(
    lambda x, ed, nickname: Invite(Identity(x, ed).public, nickname),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    NICKNAMES,
)


def encoded(prefix: str, raw: bytes) -> str:
    return prefix + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def keys_then(rest: bytes, x_pub: bytes = ALICE.public.x_pub, ed_pub: bytes = ALICE.public.ed_pub) -> str:
    return encoded("K0", x_pub + ed_pub + rest)


# --- Invites --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "nickname"), [(PLAIN, ""), (NAMED, NICK)])
def test_the_recorded_invites(text: str, nickname: str) -> None:
    invite = Invite.parse(text)
    assert invite == Invite(ALICE.public, nickname)
    assert invite.public == ALICE.public
    assert invite.nickname == invite.display_name == nickname
    assert invite.text == text


@given(INVITES)
def test_round_trip(invite: Invite) -> None:
    assert Invite.parse(invite.text) == invite


@pytest.mark.parametrize(
    "link",
    [
        "https://chat.example.org/?peer={}",
        "https://chat.example.org/app?lang=de&peer={}",
        "https://chat.example.org/app?peer={}&lang=de#top",
        "https://chat.example.org/#peer={}",
        "https://chat.example.org/#/add?peer={}",
        "https://chat.example.org/?lang=de#x=1&peer={}",
        "http://[::1]:8080/?peer={}",
        "chat.example.org/?peer={}",
        " \n\thttps://chat.example.org/?peer={}\r\n",
        " {}\n",
        "\u00a0{}\u2003",
    ],
)
def test_links_and_white_space(link: str) -> None:
    assert Invite.parse(link.format(NAMED)) == Invite(ALICE.public, NICK)


REFUSED = [
    ("", "begins with K0"),
    ("K", "begins with K0"),
    ("k0" + PLAIN[2:], "begins with K0"),
    ("K1" + PLAIN[2:], "begins with K0"),
    (CARD, "a relay card, not an invite"),
    ("K0", "cut short"),
    (PLAIN[:-1], "cut short"),
    (PLAIN[:50], "cut short"),
    (PLAIN + "AAA", "cut short"),
    (PLAIN + "B", "last character"),
    (PLAIN + "=", "no padding"),
    (PLAIN + "==", "no padding"),
    (encoded("K0", ALICE.public.x_pub + ALICE.public.ed_pub + b"ab") + "=", "no padding"),
    (PLAIN.replace("-", "+"), "only letters"),
    (PLAIN.replace("_", "/"), "only letters"),
    (PLAIN[:40] + "\n" + PLAIN[40:], "only letters"),
    (PLAIN[:40] + " " + PLAIN[40:], "only letters"),
    (PLAIN[:40] + "é" + PLAIN[41:], "only letters"),
    (PLAIN[:40] + "٣" + PLAIN[41:], "only letters"),  # a digit, but no ASCII one
    (PLAIN[:40] + "\0" + PLAIN[41:], "only letters"),
    ("K0 " + PLAIN[2:], "only letters"),
    (keys_then(b"\xff"), "not UTF-8"),
    (keys_then(b"\xc0\x80"), "not UTF-8"),  # an overlong zero
    (keys_then(b"\xed\xa0\x80"), "not UTF-8"),  # a surrogate
    (keys_then("ü".encode()[:1]), "not UTF-8"),
    (keys_then(b"a" * (NICKNAME_MAX + 1)), "too long|most"),
    (keys_then(b"a" * 3000), "too long"),
    (f"https://chat.example.org/?peer={PLAIN}&peer={PLAIN}", "more than one"),
    (f"https://chat.example.org/?peer={PLAIN}#peer={NAMED}", "more than one"),
    (f"https://chat.example.org/?peers={PLAIN}", "begins with K0"),
    (f"https://chat.example.org/{PLAIN}", "begins with K0"),
    ("https://chat.example.org/?peer=", "begins with K0"),
    (f"https://chat.example.org/?peer={CARD}", "a relay card, not an invite"),
    (f"https://chat.example.org/?peer=%4B{PLAIN[1:]}", "begins with K0"),
    (f"https://chat.example.org/?peer= {PLAIN}", "begins with K0"),
    (f"https://chat.example.org/?peer={PLAIN[:9]}\t{PLAIN[9:]}", "only letters"),
    ("x" * LINK_MAX + f"?peer={PLAIN}", "longer than any"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(BadInvite, match=why) as caught:
        Invite.parse(text)
    assert text[2:12] not in str(caught.value) or not text[2:12]


def test_bits_that_no_encoder_writes_are_refused() -> None:
    text = Invite(ALICE.public).text  # 64 bytes: 4 unused bits in the last character
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(text[-1])
    assert last % 16 == 0
    for unused in range(1, 16):
        with pytest.raises(BadInvite, match="last character"):
            Invite.parse(text[:-1] + alphabet[last + unused])


@pytest.mark.parametrize("x_pub", [*LOW_ORDER_X, *NOT_CANONICAL_X, "00" * 8 + "05" * 24])
def test_x25519_keys_that_must_not_be_used(x_pub: str) -> None:
    with pytest.raises(BadInvite, match=r"low order|not canonical|all-zero id"):
        Invite.parse(keys_then(b"", x_pub=unhex(x_pub)))


@pytest.mark.parametrize("ed_pub", [*LOW_ORDER_ED, *NOT_CANONICAL_ED])
def test_ed25519_keys_that_must_not_be_used(ed_pub: str) -> None:
    with pytest.raises(BadInvite, match="Ed25519"):
        Invite.parse(keys_then(b"", ed_pub=unhex(ed_pub)))


def test_an_invite_of_such_keys_is_not_made_either() -> None:
    with pytest.raises(BadInvite, match="low order"):
        Invite(PublicIdentity(unhex(LOW_ORDER_X[1]), ALICE.public.ed_pub))
    with pytest.raises(BadInvite, match="low order"):
        RelayCard(PublicIdentity(unhex(LOW_ORDER_X[1]), ALICE.public.ed_pub), URL)
    with pytest.raises(BadKey):
        PublicIdentity(unhex(LOW_ORDER_X[0]), ALICE.public.ed_pub)


LIKE_INVITES = st.one_of(
    st.text(),
    st.text(BASE64URL, max_size=120).map("K0".__add__),
    st.binary(min_size=60, max_size=120).map(lambda raw: encoded("K0", raw)),
    st.tuples(st.integers(0, len(NAMED) - 1), st.characters()).map(lambda c: NAMED[: c[0]] + c[1] + NAMED[c[0] + 1 :]),
    st.tuples(st.integers(0, len(NAMED) - 1), st.sampled_from(BASE64URL)).map(
        lambda c: NAMED[: c[0]] + c[1] + NAMED[c[0] + 1 :]
    ),
    st.binary(max_size=40).map(keys_then),
    st.tuples(st.text(max_size=20), INVITES, st.text(max_size=20)).map(lambda c: f"{c[0]}?peer={c[1].text}{c[2]}"),
)


@given(LIKE_INVITES)
@example(NAMED)
@example(f"https://chat.example.org/?peer={NAMED}")
def test_any_text_gives_an_invite_of_the_same_text_or_bad_invite(text: str) -> None:
    try:
        invite = Invite.parse(text)
    except BadInvite:
        return
    if text.strip().startswith("K0"):
        assert invite.text == text.strip()
    else:
        assert f"peer={invite.text}" in text
    assert Invite.parse(invite.text) == invite


# --- Nicknames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nickname", "shown"),
    [
        ("", ""),
        ("Алиса", "Алиса"),
        ("Helper\u241fclaude", "Helper"),
        ("News\u241finfo", "News"),
        ("a\u241fb\u241finfo", "a\u241fb"),
        ("\u241finfo", ""),
        ("👩‍👩‍👧 🏳️‍🌈", "👩‍👩‍👧 🏳️‍🌈"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("two\r\nlines\u2028three\u2029", "twolinesthree"),
        ("\u202egpj.exe\u2066\u200f", "gpj.exe"),
        ("\x00\x7f\x9b", ""),
    ],
)
def test_nicknames_are_kept_exactly_and_shown_safely(nickname: str, shown: str) -> None:
    invite = Invite.parse(Invite(ALICE.public, nickname).text)
    assert invite.nickname == nickname
    assert invite.display_name == display_name(nickname) == shown


def test_nicknames_are_bounded_in_bytes() -> None:
    assert encode_nickname("ü" * 128) == "ü".encode() * 128
    longest = Invite(ALICE.public, "ü" * 128)
    assert Invite.parse(longest.text) == longest
    assert len(longest.text) == 429
    assert len(Invite(ALICE.public).text) == 88
    with pytest.raises(BadInvite, match="257 bytes"):
        Invite(ALICE.public, "ü" * 128 + "a")
    with pytest.raises(BadInvite, match="UTF-8 cannot carry"):
        Invite(ALICE.public, "\ud800")


# --- Relay cards ----------------------------------------------------------------------------------------------------

GOOD_URLS = [
    URL,
    "ws://127.0.0.1:8090/ws",
    "ws://[::1]:8090/",
    "wss://h",
    "wss://relay.example.org:65535/a/b?c=d",
    "wss://реле.пример/ws",
    "wss://" + "h" * (URL_MAX - 6),
]
BAD_URLS = [
    ("", "missing"),
    ("https://relay.example.org/ws", "must begin with ws"),
    ("WSS://relay.example.org/ws", "must begin with ws"),
    ("relay.example.org", "must begin with ws"),
    ("wss:relay.example.org", "must begin with ws"),
    ("wss://", "no host"),
    ("wss:///ws", "no host"),
    ("wss://:8090/ws", "no host"),
    ("wss://?host", "no host"),
    ("ws://h:0/", "port 0"),
    ("ws://h:65536/", "cannot be read"),
    ("ws://h:port/", "cannot be read"),
    ("ws://h:-1/", "cannot be read"),
    ("ws://[::1/", "cannot be read"),
    ("ws://[v1.x]y/", "cannot be read"),
    ("ws://[::1]y/", "cannot be read"),
    ("ws://[1::2::3]/", "cannot be read"),
    ("ws://[]/", "cannot be read"),
    ("ws://h:/", "cannot be read"),
    ("ws://h:+1/", "cannot be read"),
    ("ws://h:٣/", "cannot be read"),
    ("ws://a:b:1/", "cannot be read"),
    ("ws://good.example℀evil.example/", "cannot be read"),
    ("ws://user@h/", "user name or password"),
    ("ws://user:secret@h/", "user name or password"),
    ("ws://@h/", "user name or password"),
    ("ws://h/#top", "fragment"),
    ("ws://h/#", "fragment"),
    ("ws://h/a b", "space"),
    ("ws://h\n/", "control"),
    ("ws://h/\t", "control"),
    ("ws://h/\u202e", "control"),
    ("ws://h\\@e/", "backslash"),
    ("ws://h/\ud800", "UTF-8"),
    ("wss://" + "h" * (URL_MAX - 5), "1024 are the most"),
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_cards(url: str) -> None:
    card = RelayCard(SERVER.public, url)
    assert card.text.startswith("R0")
    assert RelayCard.parse(f"  {card.text}\n") == card
    assert RelayCard.parse(card.text).url == url
    assert card.text == encoded("R0", SERVER.public.x_pub + SERVER.public.ed_pub + url.encode())


@pytest.mark.parametrize(("url", "why"), BAD_URLS)
def test_addresses_that_cannot_be_used(url: str, why: str) -> None:
    with pytest.raises(BadInvite, match=why):
        RelayCard(SERVER.public, url)
    if "\ud800" not in url:
        with pytest.raises(BadInvite):
            RelayCard.parse(encoded("R0", SERVER.public.x_pub + SERVER.public.ed_pub + url.encode()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PLAIN, "an invite, not a relay card"),
        ("", "begins with R0"),
        (f"https://chat.example.org/?peer={CARD}", "begins with R0"),
        (CARD[:30], "cut short"),
        (CARD + "=", "no padding"),
        (encoded("R0", b"\x01" + bytes(31) + SERVER.public.ed_pub + URL.encode()), "low order"),
        (encoded("R0", SERVER.public.x_pub + SERVER.public.ed_pub + b"wss://\xff"), "not UTF-8"),
    ],
)
def test_cards_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(BadInvite, match=why):
        RelayCard.parse(text)


@given(
    st.one_of(
        st.text(),
        st.text(BASE64URL, max_size=160).map("R0".__add__),
        st.text(max_size=40).map(
            lambda url: encoded("R0", SERVER.public.x_pub + SERVER.public.ed_pub + b"ws://" + url.encode())
        ),
        st.tuples(st.integers(0, len(CARD) - 1), st.sampled_from(BASE64URL)).map(
            lambda c: CARD[: c[0]] + c[1] + CARD[c[0] + 1 :]
        ),
    )
)
@example(CARD)
def test_any_text_gives_a_card_of_the_same_text_or_bad_invite(text: str) -> None:
    try:
        card = RelayCard.parse(text)
    except BadInvite:
        return
    assert card.text == text.strip()


# --- Values ---------------------------------------------------------------------------------------------------------


def test_they_are_values() -> None:
    for value in (Invite(ALICE.public, "a"), RelayCard(ALICE.public, URL)):
        assert copy.deepcopy(value) == value
        assert hash(copy.copy(value)) == hash(value)
        with pytest.raises(AttributeError):
            value.public = BOB.public  # type: ignore[misc]
    assert Invite(ALICE.public, "a") != Invite(ALICE.public, "b")
    assert Invite(ALICE.public) != Invite(BOB.public)


# --- Mailbox cards ----------------------------------------------------------------------------------------------------

BOX_URL = "https://mailbox.example/box"
BOX = MailboxCard(SERVER.public, BOX_URL)
KNOWN_BOX = json.loads((ROOT / "tests" / "vectors" / "mailbox.json").read_text("utf-8"))["card"]


def test_the_recorded_mailbox_card() -> None:
    card = MailboxCard(NOTIFIER.public, KNOWN_BOX["url"])
    assert card.text == KNOWN_BOX["text"]
    assert MailboxCard.parse(f" {card.text}\n") == card
    assert "example" not in repr(card)


@pytest.mark.parametrize(
    ("url", "by_relay"),
    [("ws://h", True), ("wss://h/ws", True), ("http://[::1]:8080", False), ("https://h/a?b", False)],
)
def test_where_a_mailbox_is_found(url: str, by_relay: bool) -> None:
    card = MailboxCard(SERVER.public, url)
    assert card.by_relay is by_relay
    assert MailboxCard.parse(card.text) == card


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "mailbox's address is missing"),
        ("ftp://h", "mailbox's address must begin"),
        ("HTTPS://h", "must begin"),
        ("https://", "no host"),
        ("https://a@h", "user name"),
        ("https://h/#x", "fragment"),
        ("https://h:0", "port 0"),
        ("https://h/" + "a" * URL_MAX, "most"),
    ],
)
def test_addresses_that_no_mailbox_has(url: str, why: str) -> None:
    with pytest.raises(BadInvite, match=why):
        MailboxCard(SERVER.public, url)


def test_cards_and_invites_are_told_apart() -> None:
    for parse, text, why in (
        (Invite.parse, BOX.text, "a mailbox card, not an invite"),
        (RelayCard.parse, BOX.text, "a mailbox card, not a relay card"),
        (MailboxCard.parse, CARD, "a relay card, not a mailbox card"),
        (MailboxCard.parse, PLAIN, "an invite, not a mailbox card"),
        (MailboxCard.parse, BOX.text[:-1], "last character|cut short"),
        (RelayCard.parse, RelayCard(SERVER.public, URL).text.replace("R0", "M0"), "a mailbox card"),
    ):
        with pytest.raises(BadInvite, match=why):
            parse(text)
    with pytest.raises(BadInvite, match=r"must begin with ws:// or wss://$"):
        RelayCard(SERVER.public, BOX_URL)


def test_a_mailbox_card_with_keys_that_must_not_be_used() -> None:
    for x_pub in LOW_ORDER_X[1:]:
        with pytest.raises((BadInvite, BadKey)):
            MailboxCard(PublicIdentity(unhex(x_pub), SERVER.public.ed_pub), BOX_URL)
