"""Texts from others, made fit to be shown: they are data, and a terminal would act on some of them."""

import unicodedata
from typing import Final
from urllib.parse import urlsplit

from wire.limits import MAX_INFO

_UNSHOWABLE: Final = frozenset({"Cc", "Cs", "Cf", "Zl", "Zp"})
"""Control characters, and with Cf those that reorder the text around them."""


def plain(text: str, most: int = MAX_INFO) -> str:
    """Return `text` in one line of at most `most` characters, each of which is only itself."""
    return " ".join(_shown(text).split())[:most]


def plain_lines(text: str, most: int = MAX_INFO) -> str:
    """Return `text` likewise, but with its line breaks."""
    return "\n".join(plain(line) for line in text.split("\n"))[:most].strip("\n")


def shown_url(url: str) -> str:
    """Return the address of a relay without its query, in which older clients have their token."""
    parts = urlsplit(url)
    return plain(f"{parts.scheme}://{parts.netloc}{parts.path}")


def _shown(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in _UNSHOWABLE else c for c in text)
