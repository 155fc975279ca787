"""Text from others, made fit to be shown: it may say anything, and do nothing."""

import unicodedata
from typing import Final

from keys.invite import BIDI_CONTROLS

_KEPT: Final = frozenset("\n\t")
# Control characters, half surrogates, and separators that some terminals take for line breaks. Format characters
# (Cf) stay where they join letters or emoji, except those that reorder the text around them.
_DROPPED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    """Return `text` without what acts on a terminal or reorders its surroundings; line breaks and tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c for c in text if c in _KEPT or (unicodedata.category(c) not in _DROPPED and c not in BIDI_CONTROLS)
    )


def clean_line(text: str, limit: int | None = None) -> str:
    """Return `text` as one clean line, white space gathered, cut to `limit` characters with an ellipsis."""
    line = " ".join(clean(text).split())
    return line if limit is None or len(line) <= limit else line[: max(limit - 1, 0)] + "…"
