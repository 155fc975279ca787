"""The page for people: what it says, what it may not do, and how large it may be."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
import segno

from keys.invite import RelayCard
from relay import front
from relay.about import MAX_CONTACT, MAX_LINK, MAX_NAME, MAX_NOTICE, MAX_OPERATOR, About
from tests.wire.pair import SERVER

URL = "wss://relay.example/ws"
PUBLIC = SERVER.public
VOID = {"meta"}


def page(about: About | None = None, url: str = URL, url_is_set: bool = True) -> str:
    return front.page(about or About(), PUBLIC, url, RelayCard(PUBLIC, url).text, url_is_set)


class Reader(HTMLParser):
    """Reads a page; fails on tags that do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_says_what_people_need() -> None:
    read = Reader(page(About("Our relay", "Alice & Bob", "on the third floor", "Down on Sunday.", "")))
    for text in (
        "Our relay",
        "Alice & Bob",
        "on the third floor",
        "Down on Sunday.",
        URL,
        PUBLIC.x_pub.hex(),
        PUBLIC.ed_pub.hex(),
        RelayCard(PUBLIC, URL).text,
        "It sees who writes to whom",
        "It cannot read, change or forge",
    ):
        assert text in read.text


def test_what_was_not_set_is_not_there() -> None:
    text = page()
    for absent in ("Operator", "Contact", "Documentation", 'class="notice"', "--url"):
        assert absent not in text
    assert "Documentation" in page(About(docs_url="https://docs.example/?a=1&b=2"))
    assert "<code>--url</code>" in page(url_is_set=False)


def test_it_runs_nothing_and_loads_nothing() -> None:
    read = Reader(page(About(docs_url="https://docs.example", contact="https://relay.example/contact")))
    tags = {tag for tag, _ in read.tags}
    assert tags.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "form", "input", "base", "audio"})
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")]
        assert not re.match("(javascript|data):", attributes.get("href") or "", re.IGNORECASE)
    assert "@import" not in page()
    assert "url(" not in page()


def test_the_policy_allows_its_one_style_sheet_and_nothing_else() -> None:
    policy = front.SECURITY_HEADERS["Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", page(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    directives = dict(each.split(" ", 1) for each in policy.split("; "))
    assert directives.pop("style-src") == f"'sha256-{digest}'"
    assert directives.pop("default-src") == "'none'"
    assert set(directives.values()) == {"'none'"}


def test_dark_mode_and_small_screens_and_readers_are_served() -> None:
    text = page()
    assert "@media(prefers-color-scheme:dark)" in text
    assert "color-scheme:light dark" in text
    read = Reader(text)
    assert read.tags[0] == ("html", {"lang": "en"})
    attributes = [attrs for tag, attrs in read.tags if tag == "svg"]
    assert [(attrs.get("role"), attrs.get("aria-label")) for attrs in attributes] == [
        ("img", "QR code of the relay card")
    ]
    assert [tag for tag, _ in read.tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h2"]
    assert {"main", "header", "footer"} <= {tag for tag, _ in read.tags}


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=a>', "&lt;b&gt;", "'\"&"])
def test_texts_of_the_operator_are_texts(text: str) -> None:
    plain = {tag for tag, _ in Reader(page()).tags} | {"p", "dl", "dt", "dd"}
    read = Reader(page(About(text, text, text, text)))
    assert {tag for tag, _ in read.tags} <= plain
    assert read.text.count(text) >= 4


@pytest.mark.parametrize(
    ("contact", "href", "shown"),
    [
        ("mailto:ops@relay.example", "mailto:ops@relay.example", "ops@relay.example"),
        ("https://x.example/?a&b", "https://x.example/?a&b", "https://x.example/?a&b"),
        ("javascript:alert(1)", None, "javascript:alert(1)"),
        ("https://x.example or in person", None, "https://x.example or in person"),
    ],
)
def test_a_contact_is_a_link_where_it_is_one(contact: str, href: str | None, shown: str) -> None:
    read = Reader(page(About(contact=contact)))
    assert shown in read.text
    links = [attrs["href"] for tag, attrs in read.tags if tag == "a" and attrs["href"] != "/info"]
    assert links == ([href] if href else [])


def test_the_qr_code_is_that_of_the_card() -> None:
    text = page()
    (box,) = re.findall(r'viewBox="0 0 (\d+) \1"', text)
    (path,) = re.findall(r'stroke="#000" d="([^"]+)"', text)
    code = segno.make_qr(RelayCard(PUBLIC, URL).text, error="m")
    assert int(box) == code.symbol_size(border=4)[0]
    # Every dark run of the drawing, summed, is every dark module of the code.
    drawn = sum(int(run) for run in re.findall(r"h(\d+)", path))
    assert drawn == sum(map(sum, code.matrix))


def test_it_is_small_whatever_is_set() -> None:
    assert len(page().encode()) < 8000
    long_url = "wss://relay.example/" + "&" * 1000
    for character in ('"', "&", "😀"):
        link = "https://" + character * (MAX_LINK - 8)
        contact = "https://" + character * (MAX_CONTACT - 8)
        worst = About(character * MAX_NAME, character * MAX_OPERATOR, contact, character * MAX_NOTICE, link)
        text = page(worst, long_url)
        assert len(text.encode()) <= front.MAX_SIZE
        assert "<svg" not in text
        assert RelayCard(PUBLIC, long_url).text in text
        Reader(text)
    assert "the whole of it is in /info" in text


def test_a_long_notice_is_whole_where_there_is_room() -> None:
    assert "é" * MAX_NOTICE in page(About(notice="é" * MAX_NOTICE))
    assert "<svg" in page(About(notice="é" * MAX_NOTICE))
