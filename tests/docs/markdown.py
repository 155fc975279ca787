"""What the tests of the documents share: the Markdown that these documents use, taken apart."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def documents() -> list[Path]:
    """Every Markdown file of the project: what git tracks or would add."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return sorted({ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()})
    # An unpacked archive has no git.
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its lines."""

    language: str
    lines: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [Block(language, tuple(body.splitlines())) for language, body in found]


def without_blocks(text: str) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", without_blocks(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        name, count = base, 0
        while name in found:
            count += 1
            name = f"{base}-{count}"
        found.add(name)
    return found


def links(text: str) -> list[str]:
    """Return the targets of a document's links, those in fenced blocks and code spans left out."""
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(text))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the pipe tables of a document, each as rows by column name."""
    found: list[list[dict[str, str]]] = []
    lines = without_blocks(text).splitlines()
    for at, line in enumerate(lines[1:], 1):
        if not re.fullmatch(r"\|(?: *:?-+:? *\|)+", line):
            continue
        header = _cells(lines[at - 1])
        rows = []
        for row in lines[at + 1 :]:
            if not row.startswith("|"):
                break
            cells = _cells(row)
            if len(cells) != len(header):
                raise ValueError(f"a row with another number of cells than its header: {row}")
            rows.append(dict(zip(header, cells, strict=True)))
        found.append(rows)
    return found


def rows(text: str, *header: str) -> list[dict[str, str]]:
    """Return the rows of all tables that have exactly these columns."""
    return [row for table in tables(text) for row in table if table and tuple(table[0]) == header]


def code(cell: str) -> str:
    """Return what stands in a cell that is one code span."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    if match is None:
        raise ValueError(f"this cell is to be one code span: {cell}")
    return match[1]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
