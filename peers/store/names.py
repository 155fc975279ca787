"""Names of files. Those that peers give are data: cleaned here, shown to people, and used as the name of a file only
where a person has a copy saved; where we ourselves keep contents, they are named by our own numbers."""

import re
import unicodedata
from typing import Final

from keys.invite import BIDI_CONTROLS

SIZE_MAX: Final = 255
"""Most bytes of a name in UTF-8: what the common file systems take."""
_SUFFIX_MAX: Final = 32
_FALLBACK: Final = "file"
_UNUSABLE: Final = frozenset('<>:"|?*')
"""Characters that Windows, and disks formatted for it, do not take."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible, and yet spelling: Persian words and composed emoji need them."""
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.IGNORECASE)
"""Devices, to Windows, whatever ending they have."""
_MIME: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
UNKNOWN_MIME: Final = "application/octet-stream"


def safe_name(name: str) -> str:
    """Return `name` as a file may be called in any directory, on any system: one component of a path, never hidden,
    nothing that acts on a terminal, no option of a command, no device; 1 to 255 bytes of UTF-8.

    Of a path the last component is taken. The ending is kept where the name has to be cut.
    """
    component = next((part for part in reversed(re.split(r"[/\\]", name)) if part.strip(" .")), "")
    shown = "".join(_fit(c) for c in unicodedata.normalize("NFC", component))
    shown = " ".join(shown.split()).lstrip(". ").rstrip(". ")
    if shown.startswith("-"):  # "-rf" is an option to most commands
        shown = "_" + shown[1:]
    if _RESERVED.fullmatch(shown):
        shown = "_" + shown
    return _cut(shown) or _FALLBACK


def numbered(name: str, number: int) -> str:
    """Return ``name (2).ext`` for a name that is taken; `number` 1 is the name itself."""
    if number <= 1:
        return name
    stem, suffix = _split(name)
    return _cut(stem + suffix, f" ({number})")


def safe_mime(mime: str) -> str:
    """Return a media type (RFC 6838 §4.2) without parameters; what is none is unknown."""
    essence = mime.partition(";")[0].strip().lower()
    return essence if _MIME.fullmatch(essence) else UNKNOWN_MIME


def _fit(char: str) -> str:
    if char in _JOINERS:
        return char
    if char in BIDI_CONTROLS or unicodedata.category(char) in _INVISIBLE:
        # Tabs and line breaks stood between words; a zero-width character stood nowhere.
        return " " if char.isspace() else ""
    return "_" if char in _UNUSABLE else char


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem or " " in suffix or len(suffix.encode()) > _SUFFIX_MAX:
        return name, ""
    if stem.lower().endswith(".tar"):
        stem, suffix = stem[:-4], stem[-3:] + "." + suffix
    return (stem, dot + suffix) if stem else (name, "")


def _cut(name: str, mark: str = "") -> str:
    stem, suffix = _split(name)
    room = SIZE_MAX - len((mark + suffix).encode())
    if len(stem.encode()) <= room:
        return stem + mark + suffix
    # A character that does not fit whole is left out; what then stands at the end must not be a dot or space.
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + mark + suffix
