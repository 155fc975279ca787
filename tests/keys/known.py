"""The parties of the protocol's vectors, and what else several tests of keys/ share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from keys.identity import Identity
from keys.passphrase import Cost

ROOT: Final = Path(__file__).resolve().parents[2]
VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests" / "vectors" / "v2.json").read_text("utf-8"))
PARTIES: Final = ("server", "alice", "bob", "notifier")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def party(name: str) -> Identity:
    return Identity(unhex(VECTORS[name]["x_seed"]), unhex(VECTORS[name]["ed_seed"]))


SERVER: Final = party("server")
ALICE: Final = party("alice")
BOB: Final = party("bob")
NOTIFIER: Final = party("notifier")

CHEAP: Final = Cost(opslimit=1, memlimit=8192)
"""The least that Argon2id does, for tests that are not about its cost."""

# Montgomery u-coordinates whose order divides 8 on the curve or 4 on its twist, canonically spelled: 0, 1, the two of
# order 8, and p-1 (https://cr.yp.to/ecdh.html#validate).
LOW_ORDER_X: Final = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
]
# The same points and ordinary ones in other spellings: p and above, or with bit 255 set.
NOT_CANONICAL_X: Final = [
    "ed" + "ff" * 30 + "7f",  # p
    "ee" + "ff" * 30 + "7f",  # p + 1
    "ff" * 31 + "7f",  # the greatest below 2^255
    "cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
    "4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
    "d9" + "ff" * 31,  # 2p - 1
    "da" + "ff" * 31,  # 2p
    "db" + "ff" * 31,  # 2p + 1
    "00" * 31 + "80",
    "09" + "00" * 30 + "80",  # the base point with bit 255 set
    "ff" * 32,
]
# Points of order 1, 2, 4 and 8 (both signs where there are two), then spellings of points that are not canonical.
LOW_ORDER_ED: Final = [
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NOT_CANONICAL_ED: Final = [
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 31,
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
    "f0" + "ff" * 30 + "7f",  # y = 3 + p: a point of large order, spelled twice
    "02" + "00" * 31,  # no point at all
]


def drawn(*values: bytes) -> Callable[[int], bytes]:
    """A source of randomness that gives these values, each when as many bytes are asked for."""
    left = list(values)

    def random_bytes(size: int) -> bytes:
        value = left.pop(0)
        assert len(value) == size
        return value

    return random_bytes
