"""What a person looks for, made fit for the index of words. Pure.

The index (SQLite's FTS5, tokenizer unicode61) knows words: runs of letters and digits. It knows no signs, such as
emoji, and no letters that are younger than its tables, and where a script puts no spaces between words it takes a whole
sentence for one. Such things are looked for letter by letter instead, which reads every text: some tens of milliseconds
for 100,000 messages.
"""

import re
import unicodedata
from typing import Final, NamedTuple

WORDS_MAX: Final = 32
"""Most words that are looked for; further ones are not looked at. What somebody pastes may have thousands."""
_INDEXED: Final = ("L", "N", "Co")
"""Categories of what unicode61 takes for a part of a word."""
# Thai, Lao, Tibetan, Myanmar, Khmer; Hiragana to Bopomofo; CJK ideographs, with those beyond the first 65,536.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Wanted(NamedTuple):
    """Two parts of a search; a text has to match both.

    Attributes:
        query: for ``MATCH``: all of these words, or beginnings of words; "" if there are none.
        literals: what must stand somewhere in the text, ASCII letters in lower case.
    """

    query: str
    literals: tuple[str, ...]


def wanted(text: str) -> Wanted:
    """Return what to look for. Takes any text; what cannot stand in a message is left out."""
    # The parser of queries ends at a zero byte, and half of a surrogate pair is in no UTF-8.
    text = "".join(" " if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)
    words = text.split()[:WORDS_MAX]
    indexed = [word for word in words if _is_indexed(word)]
    literals = tuple(_lower(word) for word in words if not _is_indexed(word))
    return Wanted(" ".join(f'"{word.replace(chr(34), chr(34) * 2)}"*' for word in indexed), literals)


def _is_indexed(word: str) -> bool:
    # SQLite's tables are those of Unicode 6.1. What was a letter in 3.2, which Python keeps, is one there as well.
    parts = [unicodedata.ucd_3_2_0.category(c) for c in word if unicodedata.category(c).startswith(_INDEXED)]
    return bool(parts) and all(part.startswith(_INDEXED) for part in parts) and _UNSPACED.search(word) is None


def _lower(word: str) -> str:
    """As SQLite's lower() does."""
    return "".join(c.lower() if c.isascii() else c for c in word)
