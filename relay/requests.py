"""Requests for pages: a head in, a reply out. Pure; the public port and the admin listener share it.

Openings of WebSockets are `relay.opening`'s. Pages take HTTP/1.0 too, for the health checks of some balancers speak it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from relay.replies import Reply


class Request(NamedTuple):
    """A request whose form was checked, and nothing else: all of it is the client's claim."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """By lower-case name; the values of a repeated one are joined by ", " (RFC 9110 §5.3)."""

    @property
    def wants_body(self) -> bool:
        """Whether the reply's body is to be sent (RFC 9110 §9.3.2)."""
        return self.method != "HEAD"


Page = Callable[[Request], Reply]

MOST_FIELDS: Final = 128
"""Header fields of one request; browsers and proxies together send some thirty."""
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE: Final = re.compile(rf"({_WORD}) (/[!-~]*) HTTP/1\.[01]")
# What follows the colon cannot match in two ways, so it takes linear time; blanks are stripped afterwards.
_FIELD: Final = re.compile(rf"({_WORD}):([\t\x20-\x7e\x80-\xff]*)")


def parse(head: bytes) -> Request | None:
    """Read a complete request head, up to and with its empty line; None if it is none."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _LINE.fullmatch(first)
    if found is None or len(lines) > MOST_FIELDS:
        return None
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        fields.append((field[1], field[2].strip(" \t")))
    path, _, query = found[2].partition("?")
    return Request(found[1], path, query, joined(fields))


def joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields by lower-case name, the values of a repeated one joined by ", " (RFC 9110 §5.3)."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    return {name: ", ".join(several) for name, several in values.items()}


def answer(request: Request, pages: Mapping[str, Page], missing: Reply) -> Reply:
    """Return the page that is asked for, `missing` where there is none, 405 for methods that no page has."""
    page = pages.get(request.path)
    if page is None:
        return missing
    if request.method not in ("GET", "HEAD"):
        return not_allowed("GET, HEAD")
    return page(request)


def not_allowed(methods: str) -> Reply:
    """Return 405 with the methods that are allowed (RFC 9110 §15.5.6)."""
    return Reply(HTTPStatus.METHOD_NOT_ALLOWED, f"Only {methods} here.\n", headers={"Allow": methods})
