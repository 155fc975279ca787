"""What the operator says of a relay, for `/`, `/info` and clients. Texts are bounded: pages and frames are."""

import base64
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wire.limits import MAX_INFO

MAX_NAME: Final = 64
MAX_OPERATOR: Final = 200
MAX_CONTACT: Final = 200
MAX_NOTICE: Final = MAX_INFO
MAX_LINK: Final = 300
"""Characters of each text; a notice is sent as INFO, which has a bound of its own (PROTOCOL.md §7.14)."""

_VAPID_KEY: Final = re.compile(r"[A-Za-z0-9_-]{87}")
# Control characters, surrogates, line and paragraph separators: they act on terminals and pages. Bidirectional
# controls reorder what stands around a text.
_CATEGORIES: Final = frozenset(("Cc", "Cs", "Zl", "Zp"))
_BIDIRECTIONAL: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class About:
    """What the operator says; empty where nothing was set."""

    name: str = "blindrelay"
    operator: str = ""
    contact: str = ""
    notice: str = ""
    docs_url: str = ""
    push_kinds: tuple[str, ...] = ()
    push_vapid_key: str = ""


def text_checker(most: int) -> Callable[[str], str]:
    """Return a function that gives back a text of at most `most` characters without control characters.

    It raises ValueError, which says what is wrong, for any other.
    """

    def check(text: str) -> str:
        if len(text) > most:
            raise ValueError(f"it has {len(text)} characters: {most} are the most")
        for character in text:
            if unicodedata.category(character) in _CATEGORIES or character in _BIDIRECTIONAL:
                raise ValueError(
                    f"it holds the control character U+{ord(character):04X}: write it in one line, without"
                )
        return text

    return check


def check_link(url: str) -> str:
    """Return a web address, or "".

    Raises:
        ValueError: it is none.
    """
    text_checker(MAX_LINK)(url)
    if url and (not url.startswith(("https://", "http://")) or " " in url or url.endswith("://")):
        raise ValueError("it has to begin with https:// or http:// and hold no blanks")
    return url


def check_vapid_key(text: str) -> str:
    """Return a VAPID public key as browsers take it, or "": unpadded base64url of an uncompressed point of P-256.

    Raises:
        ValueError: it is none.
    """
    if text:
        point = base64.urlsafe_b64decode(text + "=") if _VAPID_KEY.fullmatch(text) else b""
        # The last character has bits that no byte takes: of the texts that mean one key only one is its text.
        if point[:1] != b"\x04" or base64.urlsafe_b64encode(point).decode() != text + "=":
            raise ValueError("it has to be the 87 characters that `blindrelay-notifier keygen` prints")
    return text
