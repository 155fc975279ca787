"""The HTTP side of the WebSocket port: where openings go, and the pages (PROTOCOL.md §8.2).

Everything here is public. Nothing tells of one client: the only figure is how many sessions there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from keys.invite import RelayCard
from relay import __version__, front
from relay.about import About
from relay.opening import Admit, Answer, Opening, open_any, open_ordinary
from relay.replies import HTML, NO_STORE, Reply, json_reply
from relay.requests import Page, Request, answer, not_allowed, parse
from wire.limits import MAX_FRAME, MAX_INFO, MAX_NICKNAME, MAX_PUSH_TOKEN, PROTOCOL_VERSION

if TYPE_CHECKING:
    from relay.core import Core

WEBSOCKET_PATHS: Final = frozenset(("/ws", "/api0"))
"""`/api0` is where older telefon clients look."""
HEALTH_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"

TOO_LARGE: Final = Reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.\n")

_MISSING: Final = Reply(HTTPStatus.NOT_FOUND, "A blindrelay relay. WebSocket clients connect to /ws.\n")
_ALIVE: Final = Reply(HTTPStatus.OK, "ok\n", headers=NO_STORE)
_READY: Final = Reply(HTTPStatus.OK, "ready\n", headers=NO_STORE)
_MAX_AGE: Final = 300
"""Seconds that a proxy or browser may keep `/` and `/info`: they change when the operator changes something."""

# What a client can meet, and so may want to know before it does.
_TOLD_LIMITS: Final = (
    "ping_after",
    "silent_after",
    "frames_per_second",
    "frames_burst",
    "bytes_per_second",
    "bytes_burst",
    "commands_per_second",
    "commands_burst",
    "partial_deadline",
    "queue_size",
    "queue_age",
    "subscriptions",
    "introductions_per_second",
    "introductions_burst",
    "introductions_pair_per_second",
    "introductions_pair_burst",
    "introductions_target_per_second",
    "introductions_target_burst",
    "wakes_per_second",
    "wakes_burst",
    "wakes_pair_per_second",
    "wakes_pair_burst",
    "wakes_target_per_second",
    "wakes_target_burst",
    "registrations_per_second",
    "registrations_burst",
)


class Pages:
    """Answers requests.

    Args:
        core: the relay; what it knows of limits, texts and readiness is asked for when it is needed.
        url: where clients reach the relay, for the relay card.
        url_is_set: whether that is what the operator said, and not where it happens to listen.
    """

    def __init__(self, core: "Core", url: str, *, url_is_set: bool) -> None:
        self._core = core
        self._url = url
        self._url_is_set = url_is_set
        self._card = RelayCard(core.identity.public, url).text
        self._started = datetime.now(UTC)
        self._began = core.clock()
        self._kept: dict[str, tuple[tuple[object, ...], Reply]] = {}
        self.sessions_elsewhere = 0
        """Clients of the other processes of this relay (`--workers`), for `/status`; told by their parent."""
        self._pages: Mapping[str, Page] = {
            "/": self._front,
            "/info": self._info,
            "/status": self._status,
            HEALTH_PATH: self.alive,
            READY_PATH: self.ready,
        }

    def draw(self) -> None:
        """Make the page for people now: its QR code takes tens of milliseconds, which no frame should wait for."""
        self._keep("/", self._make_front)

    @property
    def paths(self) -> list[str]:
        """Where there are pages."""
        return list(self._pages)

    def answer(self, head: bytes, admit: Admit) -> Answer:
        """Answer a complete HTTP request head, up to and with its empty line."""
        opened = open_ordinary(head, WEBSOCKET_PATHS, admit)
        if opened is not None:
            return opened
        request = parse(head)
        if request is not None:
            if request.path not in WEBSOCKET_PATHS:
                reply = answer(request, self._pages, _MISSING)
                return Answer(reply.encode(with_body=request.wants_body), False)
            if request.method != "GET":
                return Answer(not_allowed("GET").encode(with_body=request.wants_body), False)
        return open_any(head, WEBSOCKET_PATHS, admit, _missing)

    # --- The pages ---------------------------------------------------------------------------------------------------

    @staticmethod
    def alive(_request: Request) -> Reply:
        """Say that the event loop runs."""
        return _ALIVE

    def ready(self, _request: Request) -> Reply:
        """Say whether clients should be sent here, and if not, why.

        A relay that lost the others of its cluster says so, and is ready: what takes one from its clients takes all at
        once, and a balancer that removed all of them would end what still works.
        """
        losses = self._core.ready.losses
        if self._core.ready and losses:
            return Reply(HTTPStatus.OK, "".join(f"{line}\n" for line in ("ready", *losses)), headers=NO_STORE)
        if self._core.ready:
            return _READY
        text = "".join(f"{reason}\n" for reason in self._core.ready.reasons)
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, text, headers=NO_STORE)

    def _status(self, _request: Request) -> Reply:
        """Give what telefon's server gives, under the same names; `connections` are sessions, as there."""
        core = self._core
        return json_reply(
            {
                "started_at": self._started.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "uptime_sec": int(core.clock() - self._began),
                "connections": len(core.sessions) + self.sessions_elsewhere,
                "version": __version__,
                "status": "not ready" if not core.ready else "degraded" if core.ready.losses else "ok",
            },
            NO_STORE,
        )

    @property
    def _about(self) -> About:
        """What the operator says; that the relay is being closed down comes before any other notice."""
        about = self._core.about
        return replace(about, notice=" ".join(filter(None, (self._core.admission.notice, about.notice))))

    def _front(self, _request: Request) -> Reply:
        return self._keep("/", self._make_front)

    def _make_front(self) -> Reply:
        page = front.page(self._about, self._core.identity.public, self._url, self._card, self._url_is_set)
        return Reply(
            HTTPStatus.OK, page, HTML, {"Cache-Control": f"public, max-age={_MAX_AGE}", **front.SECURITY_HEADERS}
        )

    def _info(self, _request: Request) -> Reply:
        return self._keep("/info", self._make_info)

    def _make_info(self) -> Reply:
        # Any web page may read it: there is nothing in it that is not public, and no cookie that would be sent along.
        return json_reply(
            self.facts(), {"Cache-Control": f"public, max-age={_MAX_AGE}", "Access-Control-Allow-Origin": "*"}
        )

    def facts(self) -> dict[str, Any]:
        """Return what `/info` says; a text that the operator did not set is null."""
        core, about = self._core, self._about
        public = core.identity.public
        return {
            "name": about.name,
            "software": "blindrelay",
            "version": __version__,
            "protocol_versions": [PROTOCOL_VERSION],
            "x25519_public": public.x_pub.hex(),
            "ed25519_public": public.ed_pub.hex(),
            "relay_card": self._card,
            "limits": {
                "max_frame": MAX_FRAME,
                "max_nickname": MAX_NICKNAME,
                "max_push_token": MAX_PUSH_TOKEN,
                "max_info": MAX_INFO,
                **{name: getattr(core.limits, name) for name in _TOLD_LIMITS},
            },
            "mailbox": {"offered": False},
            # Which kinds of token the notifier takes the operator says: it is an ordinary client, and tells the relay
            # nothing.
            "push": {
                "offered": core.notifier_id is not None,
                "kinds": list(about.push_kinds) or None,
                "vapid_public_key": about.push_vapid_key or None,
            },
            "operator": about.operator or None,
            "contact": about.contact or None,
            "notice": about.notice or None,
        }

    def _keep(self, path: str, make: Callable[[], Reply]) -> Reply:
        """Return a page from memory, unless what it was made from was replaced since."""
        core = self._core
        key = (core.about, core.admission.notice, core.limits, core.notifier_id)
        kept = self._kept.get(path)
        if kept is None or kept[0] != key:
            kept = self._kept[path] = (key, make())
        return kept[1]


def _missing(_opening: Opening) -> Reply:
    return _MISSING
