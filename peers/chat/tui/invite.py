"""Our invite, as text and as a QR code that a phone can read off a terminal."""

from typing import Final

import segno
from textual.content import Content

_QUIET: Final = 2
"""Light modules around the code. ISO 18004 asks for four; readers do with two, and 80×24 has no room for more."""
_LIGHT: Final = "#000000 on #ffffff"
# Two rows of modules to a row of cells: light above, light below.
_HALVES: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def qr_code(text: str) -> Content:
    """Return a QR code, dark on light whatever the theme: not all readers take an inverted one."""
    rows = [[bool(module) for module in row] for row in segno.make(text, error="l", micro=False).matrix_iter(1, _QUIET)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = [
        "".join(_HALVES[above, below] for above, below in zip(top, bottom, strict=True))
        for top, bottom in zip(rows[::2], rows[1::2], strict=True)
    ]
    return Content("\n").join([Content.styled(line, _LIGHT) for line in lines])


def invite_sheet(invite: str, name: str) -> Content:
    """Return what to show to somebody who wants to write to us."""
    return Content.assemble(
        "Give this line, or the code, to whoever is to write to you",
        f" (they see you as {name})." if name else ".",
        " It holds your public keys and no secret; but who holds it can write to you.\n\n",
        (invite, "bold"),
        "\n\n",
        qr_code(invite),
    )
