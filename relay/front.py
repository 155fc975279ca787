"""The page for people at `/`: who runs this relay, what it can know, its card. No script, nothing from elsewhere."""

import base64
import hashlib
import io
from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Final

import segno

from keys.identity import PublicIdentity
from relay import __version__
from relay.about import About

MAX_SIZE: Final = 20_000
"""Bytes of the page; the QR code of a card too long to fit is left out, and if need be the end of the notice."""
_NOTICE_CUT: Final = 500

_STYLE: Final = """
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--soft:#57606a;--line:#d0d7de;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--back:#0d1117;--soft:#9da7b3;--line:#30363d;--link:#79b8ff}}
body{margin:0 auto;max-width:42rem;padding:1.5rem 1rem;font:1rem/1.55 system-ui,sans-serif;
color:var(--text);background:var(--back);overflow-wrap:anywhere}
h1{line-height:1.2;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
code{font:.85rem/1.5 ui-monospace,monospace;user-select:all}
dt,footer{color:var(--soft)}dd{margin:0 0 .6rem}a{color:var(--link)}
.notice{border:1px solid var(--line);border-left-width:.3rem;padding:.6rem .8rem}
svg{display:block;width:100%;max-width:17rem;height:auto;margin:0 0 1rem}
footer{border-top:1px solid var(--line);margin-top:2rem;padding-top:.8rem;font-size:.9rem}
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SECURITY_HEADERS: Final = {
    # Nothing may be loaded, run, framed or sent; the one style sheet is allowed by its digest.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


def page(about: About, public: PublicIdentity, url: str, card: str, url_is_set: bool) -> str:
    """Return the page, of at most 20,000 bytes in UTF-8."""
    text = _page(about, public, url, card, url_is_set, _qr(card))
    if len(text.encode()) > MAX_SIZE:
        text = _page(about, public, url, card, url_is_set, "")
    if len(text.encode()) > MAX_SIZE:
        cut = replace(about, notice=f"{about.notice[:_NOTICE_CUT]}… (the whole of it is in /info)")
        text = _page(cut, public, url, card, url_is_set, "")
    return text


def _page(about: About, public: PublicIdentity, url: str, card: str, url_is_set: bool, qr: str) -> str:
    name = escape(about.name) or "blindrelay"
    notice = f'<p class="notice" role="note">{escape(about.notice)}</p>\n' if about.notice else ""
    local = (
        ""
        if url_is_set
        else "<p>The operator has not said where this relay is reached (<code>--url</code>), so this card "
        "is of use on the machine itself only.</p>\n"
    )
    rows = [("Operator", escape(about.operator)), ("Contact", _contact(about.contact))]
    people = "".join(f"<dt>{title}</dt><dd>{text}</dd>" for title, text in rows if text)
    docs = f' · <a href="{escape(about.docs_url)}" rel="noreferrer">Documentation</a>' if about.docs_url else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{name}</h1>
<p>A relay for end-to-end encrypted messages. It has no page to write in: add it to your messenger by its card.</p>
{notice}</header>
<main>
<h2>What this relay can know</h2>
<p>It sees who writes to whom, when and how much, who wants to know of whose presence, and the network address of each
connection as far as a proxy tells it.</p>
<p>It cannot read, change or forge what two people say to each other who know each other's true keys.</p>
<h2>Relay card</h2>
{local}{qr}<p><code>{escape(card)}</code></p>
<dl><dt>Address</dt><dd><code>{escape(url)}</code></dd>
<dt>X25519 public key</dt><dd><code>{public.x_pub.hex()}</code></dd>
<dt>Ed25519 public key</dt><dd><code>{public.ed_pub.hex()}</code></dd>
{people}</dl>
</main>
<footer>blindrelay {__version__} · <a href="/info">the same for programs</a>{docs}</footer>
</body>
</html>
"""


def _contact(contact: str) -> str:
    text = escape(contact)
    if contact.startswith(("https://", "http://", "mailto:")) and " " not in contact:
        return f'<a href="{text}" rel="noreferrer">{text.removeprefix("mailto:")}</a>'
    return text


@lru_cache(maxsize=2)
def _qr(card: str) -> str:
    """Return the QR code of a card as SVG: dark on light in every theme, for cameras want it so; "" if none can be."""
    try:
        code = segno.make_qr(card, error="m")
    except segno.DataOverflowError:
        return ""
    out = io.BytesIO()
    code.save(
        out,
        kind="svg",
        xmldecl=False,
        svgns=False,
        nl=False,
        omitsize=True,
        border=4,
        dark="#000",
        light="#fff",
        svgclass=None,
        lineclass=None,
    )
    svg = out.getvalue().decode()
    # To a screen reader it is one picture with a name; the text of the card follows it.
    return svg.replace("<svg ", '<svg role="img" aria-label="QR code of the relay card" ', 1) + "\n"
