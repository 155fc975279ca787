"""Names of files: what peers call them, and what may be a name on our disk."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peers.store.names import SIZE_MAX, UNKNOWN_MIME, numbered, safe_mime, safe_name

# Whole names of devices, separators and ends of paths come up more often than by chance.
NAMES = st.lists(
    st.one_of(
        st.text(max_size=300),
        st.sampled_from(
            ["/", "\\", "..", ".", " ", "-", "con", "NUL", "lpt1", ".tar", ".gz", "\u202e", "\x1b[2J", "é"]
        ),
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("/", "file"),
        ("", "file"),
        ("...", "file"),
        (".bashrc", "bashrc"),
        ("-rf", "_rf"),
        ("a\nb\tc", "a b c"),
        ("\x1b[31mred", "[31mred"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("zero\u200bwidth", "zerowidth"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("COM1.tar.gz", "_COM1.tar.gz"),
        ("console.txt", "console.txt"),
        ('a<b>c:d"e|f?g*', "a_b_c_d_e_f_g_"),
        ("name. ", "name"),
        ("  spaced   out  ", "spaced out"),
        ("dir/", "dir"),
        ("👩\u200d🔬.png", "👩\u200d🔬.png"),
        ("e\u0301", "é"),
    ],
)
def test_safe_names(given_name: str, name: str) -> None:
    assert safe_name(given_name) == name


@given(NAMES)
@example("x" * 400 + ".jpeg")
@example("é" * 300)
@example("con" + " " * 300 + "x")
@example("0 .TAR..0")
@example("a" * 251 + "." + "b" * 40)
def test_any_name_becomes_one_that_can_be_used(name: str) -> None:
    safe = safe_name(name)
    assert 1 <= len(safe.encode()) <= SIZE_MAX
    assert not set("/\\\0") & set(safe)
    assert safe not in (".", "..")
    assert not safe.startswith((".", "-", " "))
    assert not safe.endswith((".", " "))
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in safe)
    assert safe_name(safe) == safe


def test_a_long_name_keeps_its_ending() -> None:
    name = safe_name("x" * 400 + ".tar.gz")
    assert name.endswith("x.tar.gz")
    assert len(name) == SIZE_MAX


def test_numbers_stand_before_the_ending() -> None:
    assert numbered("a.txt", 1) == "a.txt"
    assert numbered("a.txt", 2) == "a (2).txt"
    assert numbered("a.tar.gz", 3) == "a (3).tar.gz"
    assert numbered("no ending", 2) == "no ending (2)"
    assert numbered("Dr. No", 2) == "Dr. No (2)"


@given(NAMES, st.integers(2, 99999))
def test_numbered_names_fit(name: str, number: int) -> None:
    safe = safe_name(name)
    made = numbered(safe, number)
    assert made != safe
    assert len(made.encode()) <= SIZE_MAX
    assert f"({number})" in made
    assert "/" not in made


@pytest.mark.parametrize(
    ("given_type", "mime"),
    [
        ("image/png", "image/png"),
        ("Text/HTML; charset=utf-8", "text/html"),
        ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
        ("", UNKNOWN_MIME),
        ("image", UNKNOWN_MIME),
        ("image/\x1b[2J", UNKNOWN_MIME),
        ("a/" + "b" * 200, UNKNOWN_MIME),
    ],
)
def test_media_types(given_type: str, mime: str) -> None:
    assert safe_mime(given_type) == mime
