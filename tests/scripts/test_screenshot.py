"""scripts/screenshot.py: the picture in the docs can be made anew, and is not too large for them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 300_000


def width(png: bytes) -> int:
    assert png.startswith(SIGNATURE)
    return int(struct.unpack_from(">I", png, 16)[0])


def test_the_picture_is_made(tmp_path: Path) -> None:
    target = tmp_path / "images" / "chat.png"
    done = subprocess.run(
        [sys.executable, "-P", ROOT / "scripts" / "screenshot.py", target],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    png = target.read_bytes()
    assert width(png) == 1280
    assert 20_000 < len(png) < MOST


def test_the_picture_in_the_docs_is_one_of_these() -> None:
    png = (ROOT / "docs" / "images" / "chat.png").read_bytes()
    assert width(png) == 1280
    assert len(png) < MOST
