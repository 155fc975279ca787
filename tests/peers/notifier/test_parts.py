"""VAPID keys and tokens, subscriptions, payloads, Retry-After: without a network."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_vapid import Vapid02
from py_vapid.jwt import decode

from peers.notifier.channel import PushType
from peers.notifier.outbound import RETRY_AFTER_MAX, read_retry_after
from peers.notifier.payload import PAYLOAD_SIZE, payload
from peers.notifier.subscriptions import TOKEN_MAX, read_subscription
from peers.notifier.vapid import VapidKey, VapidTokens, encode64
from tests.support.push_services import Browser

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CONTACT = "mailto:admin@example.org"


_JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["endpoint", "keys", "p256dh", "auth"]), inner),
)


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class TestRetryAfter:
    NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("١٢", None), ("120", 120.0),
            (" 7 ", 7.0), ("0", 0.0),
            ("999999999999", RETRY_AFTER_MAX), ("9" * 5000, None),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0), ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
            ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
            ("Sun, 06 Nov 1994 08:50:37 -0000", 60.0), ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX),
            ("Sun, 99 Nov 1994 08:50:37 GMT", None), ("x" * 5000, None),
        ],
    )  # fmt: skip
    def test_read(self, text: str | None, seconds: float | None) -> None:
        assert read_retry_after(text, self.NOW) == seconds

    @given(st.text())
    def test_any_text_has_an_answer(self, text: str) -> None:
        wanted = read_retry_after(text, self.NOW)
        assert wanted is None or 0 <= wanted <= RETRY_AFTER_MAX


def test_payloads_differ_in_the_type_alone_and_not_in_size() -> None:
    assert {each: json.loads(payload(each)) for each in PushType} == {
        PushType.MESSAGE: {"type": "message"},
        PushType.CALL: {"type": "call"},
    }
    assert {len(payload(each)) for each in PushType} == {PAYLOAD_SIZE}


class TestVapidKey:
    def test_minted_keys_differ_and_come_back_from_their_secret(self) -> None:
        one, other = VapidKey.generate(), VapidKey.generate()
        assert one.secret != other.secret
        assert VapidKey(one.secret).application_server_key == one.application_server_key
        point = base64.urlsafe_b64decode(one.application_server_key + "=")
        assert len(point) == 65
        assert point[0] == 4
        assert "=" not in one.application_server_key
        assert one.secret.hex() not in repr(one)
        assert repr(one) == "VapidKey()"

    @pytest.mark.parametrize(
        "secret", [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32, P256_ORDER.to_bytes(32, "big")]
    )
    def test_no_secrets(self, secret: bytes) -> None:
        with pytest.raises(ValueError, match="VAPID secret"):
            VapidKey(secret)

    def test_small_and_large_secrets(self) -> None:
        for number in (1, P256_ORDER - 1):
            secret = number.to_bytes(32, "big")
            assert VapidKey(secret).signer().private_key.private_numbers().private_value == number


def _claims(header: str) -> tuple[dict[str, Any], str]:
    assert Vapid02.verify(header)
    token, _, key = header.removeprefix("vapid t=").partition(",k=")
    return decode(token, key), key


class TestVapidTokens:
    def test_signed_for_the_origin_for_twelve_hours(self) -> None:
        key, clock = VapidKey.generate(), Clock()
        claims, public = _claims(VapidTokens(key, CONTACT, clock).authorization("https://push.example.org:8443"))
        assert public == key.application_server_key
        assert claims == {"aud": "https://push.example.org:8443", "exp": int(clock.now) + 12 * 3600, "sub": CONTACT}

    def test_kept_by_origin_and_renewed_in_time(self) -> None:
        clock = Clock()
        tokens = VapidTokens(VapidKey.generate(), CONTACT, clock)
        first = tokens.authorization("https://a.example.org")
        assert tokens.authorization("https://a.example.org") == first
        assert tokens.authorization("https://b.example.org") != first
        clock.now += 6 * 3600 - 1
        assert tokens.authorization("https://a.example.org") == first
        clock.now += 1
        renewed = tokens.authorization("https://a.example.org")
        assert renewed != first
        assert _claims(renewed)[0]["exp"] == int(clock.now) + 12 * 3600

    def test_a_clock_that_is_set_back_makes_a_new_one(self) -> None:
        clock = Clock()
        tokens = VapidTokens(VapidKey.generate(), CONTACT, clock)
        tokens.authorization("https://a.example.org")
        clock.now -= 7 * 24 * 3600
        assert _claims(tokens.authorization("https://a.example.org"))[0]["exp"] <= clock.now + 24 * 3600

    def test_memory_is_bounded(self) -> None:
        tokens = VapidTokens(VapidKey.generate(), CONTACT, Clock())
        for number in range(600):
            tokens.authorization(f"https://{number}.example.org")
        assert len(tokens._cached) == 500

    @pytest.mark.parametrize(
        "contact",
        [
            "", "admin@example.org", "mailto:", "tel:123", "http://example.org", "https://localhost", "mailto:a@b",
            "mailto:a@b.c\n", "mailto:a\"@b.c ", "x" * 300,
        ],
    )  # fmt: skip
    def test_contacts_that_push_services_refuse(self, contact: str) -> None:
        with pytest.raises(ValueError, match="contact"):
            VapidTokens(VapidKey.generate(), contact)

    @pytest.mark.parametrize(
        "contact", ["mailto:a.b+c@example.org", "https://example.org", "https://chat.example.org/contact"]
    )
    def test_contacts_that_they_take(self, contact: str) -> None:
        claims, _ = _claims(VapidTokens(VapidKey.generate(), contact).authorization("https://a.example.org"))
        assert claims["sub"] == contact


class TestSubscriptions:
    BROWSER = Browser("https://push.example.org/x")

    def test_as_browsers_give_them(self) -> None:
        told = json.loads(self.BROWSER.token())
        read = read_subscription(json.dumps(told | {"expirationTime": None, "new": [1]}).encode())
        assert read.endpoint == "https://push.example.org/x"
        assert (read.p256dh, read.auth) == (told["keys"]["p256dh"], told["keys"]["auth"])
        assert repr(read) == "Subscription()"

    def test_padding_is_taken(self) -> None:
        told = json.loads(self.BROWSER.token())
        told["keys"] = {name: value + "=" * (-len(value) % 4) for name, value in told["keys"].items()}
        assert read_subscription(json.dumps(told).encode()) == read_subscription(self.BROWSER.token())

    def _broken(self) -> list[bytes]:
        good = json.loads(self.BROWSER.token())
        p256dh, auth = good["keys"]["p256dh"], good["keys"]["auth"]
        point = base64.urlsafe_b64decode(p256dh + "=")
        flipped = point[:-1] + bytes((point[-1] ^ 1,))
        bad_points = [
            None, 5, "", "!", p256dh[:-1], p256dh + "A", p256dh + "===", "A" * 3000, "é" + p256dh[1:], "+" + p256dh[1:],
            encode64(flipped), encode64(b"\x02" + point[1:33]), encode64(bytes(65)), encode64(b"\x04" + bytes(64)),
        ]  # fmt: skip
        bad_secrets = [None, 5, "", auth[:-2], auth + "AA", "=" * 22, [auth]]
        broken: list[Any] = [
            None, [], 1, "x", {}, good | {"keys": None}, good | {"keys": []}, good | {"keys": {}},
            good | {"endpoint": None}, good | {"endpoint": 5}, {"keys": good["keys"]},
            *(good | {"keys": {"p256dh": bad, "auth": auth}} for bad in bad_points),
            *(good | {"keys": {"p256dh": p256dh, "auth": bad}} for bad in bad_secrets),
        ]  # fmt: skip
        return [json.dumps(each).encode() for each in broken]

    def test_broken_ones(self) -> None:
        for token in [
            *self._broken(),
            b"",
            b"{",
            b"\xff",
            b'{"endpoint":',
            b"[" * 4000,
            b"1" * 4000,
            b" " * (TOKEN_MAX + 1),
        ]:
            with pytest.raises(ValueError, match=r"subscription") as caught:
                read_subscription(token)
            assert "push.example" not in str(caught.value)

    def test_the_longest(self) -> None:
        told = json.loads(self.BROWSER.token())
        token = json.dumps(told).encode()
        assert read_subscription(token + b" " * (TOKEN_MAX - len(token))).endpoint
        with pytest.raises(ValueError, match="4096 bytes"):
            read_subscription(token + b" " * (TOKEN_MAX + 1 - len(token)))

    @given(st.binary() | _JSON.map(lambda told: json.dumps(told).encode()))
    def test_any_bytes_are_read_or_a_value_error(self, token: bytes) -> None:
        with pytest.raises(ValueError, match="subscription"):
            read_subscription(token)
