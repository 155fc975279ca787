"""Whose address counts behind proxies."""

from __future__ import annotations

import pytest

from peers.mailbox.forwarded import DEFAULT_TRUSTED, NOBODY, Proxies

PROXIES = Proxies.parse("10.0.0.0/8, 2001:db8:1::/48 192.0.2.1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.1", "", "203.0.113.1"),
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),  # a claim
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.9.9.9, 192.0.2.1", "198.51.100.1"),
        ("10.0.0.1", " , 198.51.100.1 , ,", "198.51.100.1"),
        ("2001:db8:1::5", "2001:db8:2::1", "2001:db8:2::1"),
        ("2001:db8:1::5", "[2001:db8:2::1]:443", "2001:db8:2::1"),
        ("10.0.0.1", "198.51.100.1:443", "198.51.100.1"),
        ("10.0.0.1", '"198.51.100.1"', "198.51.100.1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("10.0.0.1", "10.0.0.7", "10.0.0.7"),  # somebody inside
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", NOBODY),
        ("10.0.0.1", "198.51.100.1, unknown", NOBODY),
        ("10.0.0.1", "_hidden", NOBODY),
        ("10.0.0.1", ",".join(["10.0.0.2"] * 1000), NOBODY),
        ("what", "198.51.100.1", NOBODY),
        (None, "198.51.100.1", NOBODY),
    ],
)
def test_the_first_that_is_no_trusted_proxy_counts(peer: str | None, forwarded: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded) == client


def test_who_is_trusted() -> None:
    assert PROXIES.trusts("10.1.2.3")
    assert PROXIES.trusts("::ffff:10.1.2.3")
    assert not PROXIES.trusts("203.0.113.1")
    assert not PROXIES.trusts("what")
    assert Proxies.parse(DEFAULT_TRUSTED).trusts("::1")
    assert not Proxies.parse("").trusts("127.0.0.1")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "localhost", "10.0.0.0/8;x", "unix"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        Proxies.parse(text)
