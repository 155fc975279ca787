"""The way to a mailbox that has an address of its own."""

from http import HTTPStatus
from typing import Final

from keys.errors import OpenError
from keys.identity import Identity
from keys.invite import MailboxCard
from keys.pickup import CHALLENGE_SIZE, answer_challenge
from peers.dropping.client import Request
from peers.dropping.errors import MailboxRefused, NotAMailbox, Unreachable
from peers.dropping.options import DroppingOptions
from peers.dropping.web import Reply, Web
from wire import mailbox_http as http
from wire.errors import BadBody
from wire.mailbox_answers import About, FromMailbox, Refused
from wire.mailbox_codes import Reason
from wire.mailbox_commands import Info

_INFO_MAX: Final = 65536
_PASSING: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""What a proxy says for a mailbox that is away for a while."""


class HttpWay:
    """Requests over HTTP.

    Args:
        card: the mailbox's.
        ours: in whose name things are picked up; None for a depositor, who has no name.
    """

    def __init__(self, card: MailboxCard, options: DroppingOptions, ours: Identity | None = None) -> None:
        self._card = card
        self._ours = ours
        self._web = Web(card.url, options.timeout, options.ssl, far=options.far)

    async def ask(self, request: Request) -> FromMailbox:
        """See :class:`peers.dropping.client.Way`."""
        if isinstance(request, Info):
            return await self._info()
        path = http.path_of(request)
        if path == "/drop":
            return _answer(await self._web.post(path, http.encode_request(request), http.ANSWER_MAX))
        if self._ours is None:
            raise MailboxRefused(Reason.BAD_REQUEST)
        for last in (False, True):
            challenge = await self._challenge(self._ours)
            if isinstance(challenge, Refused):
                return challenge
            try:
                card, arguments = self._card, http.arguments_of(request)
                proof = answer_challenge(self._ours, card.public, card.url, request.command, arguments, challenge)
            except OpenError:
                raise NotAMailbox("what answers there is not the mailbox of this card: its keys are others") from None
            body = http.encode_request(request, self._ours.public.x_pub, proof)
            answer = _answer(await self._web.post(path, body, http.ANSWER_MAX))
            # A challenge dies with the process that made it: a mailbox that was just restarted is asked once more.
            if last or not (isinstance(answer, Refused) and answer.reason == Reason.BAD_REQUEST):
                return answer
        raise AssertionError("the second round returns")

    async def rest(self) -> None:
        """See :class:`peers.dropping.client.Way`."""
        await self._web.close()

    async def _info(self) -> About:
        reply = await self._web.get(http.INFO_PATH, _INFO_MAX)
        if reply.status != HTTPStatus.OK:
            raise _no_answer(reply)
        try:
            return http.about_from_json(reply.body)
        except BadBody:
            raise NotAMailbox("what answers there is no mailbox") from None

    async def _challenge(self, ours: Identity) -> bytes | Refused:
        reply = await self._web.post(http.CHALLENGE_PATH, ours.public.x_pub, http.ANSWER_MAX)
        if reply.status == HTTPStatus.OK and len(reply.body) == CHALLENGE_SIZE:
            return reply.body
        answer = _answer(reply)
        if isinstance(answer, Refused):
            return answer
        raise NotAMailbox("the mailbox's answer makes no sense")


def _answer(reply: Reply) -> FromMailbox:
    try:
        answer = http.parse_answer(reply.body)
    except BadBody:
        raise _no_answer(reply) from None
    # Only what the status agrees with: pages of errors begin with any byte.
    if (reply.status == HTTPStatus.OK) == isinstance(answer, Refused):
        raise _no_answer(reply)
    return answer


def _no_answer(reply: Reply) -> Unreachable | NotAMailbox:
    if reply.status in _PASSING:
        return Unreachable(f"the mailbox is away (HTTP {reply.status})")
    return NotAMailbox(f"what answers there is no mailbox (HTTP {reply.status})")
