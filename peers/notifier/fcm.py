"""Firebase Cloud Messaging (kind 1), HTTP v1: data messages to Android apps of one Firebase project.

What Google learns: the address of the notifier and its Firebase project, the token, which is one app on one device and
is known to it with that device's address and mostly its owner's account, the moment of each push, and whether it is a
call: data messages are not encrypted. Not who wrote, not what, no id of the relay.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.google import REFUSED_WAIT, AccessTokens, NoAccess, ServiceAccount, read_json
from peers.notifier.outbound import Forbidden, Outbound, Reply, Unreachable
from wire.commands import PushKind

API: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
TTL_MAX: Final = 28 * 24 * 3600
"""Most seconds that FCM keeps anything."""
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_:.%-]{20,1024}")
"""Google promises no form. Those that are seen have some 150 characters, of base64url, with one colon."""
_PROJECT: Final = re.compile(r"[a-z][a-z0-9:.-]{4,61}[a-z0-9]")
_QUOTA_WAIT: Final = 60.0
"""Seconds of rest where FCM names none: what its documentation asks for."""


class Fcm:
    """The channel for Android apps.

    Args:
        outbound: sends.
        account: may send for the project.
        project: whose apps, by default the account's own.
        api: for tests.
        clock: seconds since 1970.

    Raises:
        ValueError: that is no project, or the account names no URL that we send to.
    """

    kind: int = PushKind.FCM
    name: str = "fcm"

    def __init__(
        self,
        outbound: Outbound,
        account: ServiceAccount,
        *,
        project: str | None = None,
        api: str = API,
        clock: Callable[[], float] = time.time,
    ) -> None:
        project = account.project_id if project is None else project
        if not _PROJECT.fullmatch(project):
            raise ValueError("a Firebase project is named like my-project-1a2b3")
        self._outbound = outbound
        self._endpoint = outbound.check(f"{api}/v1/projects/{project}/messages:send", ours=True)
        self._tokens = AccessTokens(outbound, account, SCOPE, clock)

    def check_token(self, token: bytes) -> None:
        """Check a registration token's form. See `peers.notifier.channel.Channel.check_token`."""
        if not _TOKEN.fullmatch(token):
            raise ValueError("this is no FCM registration token")

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push. See `peers.notifier.channel.Channel.push`."""
        try:
            self.check_token(token)
        except ValueError as error:
            return Outcome(Result.UNUSABLE, detail=str(error))
        body = json.dumps(_message(token.decode(), push), separators=(",", ":")).encode()
        try:
            access = await self._tokens.get()
            reply = await self._send(access, body)
            if reply.status == 401 and _error_code(reply) != "THIRD_PARTY_AUTH_ERROR":
                # Revoked early, or our clock jumped. A second refusal is the operator's matter.
                self._tokens.discard(access)
                reply = await self._send(await self._tokens.get(), body)
        except NoAccess as error:
            return error.outcome
        except Unreachable as error:
            return Outcome(Result.RETRY, detail=str(error))
        except Forbidden as error:
            return Outcome(Result.REFUSED, REFUSED_WAIT, str(error))
        return judge(reply)

    async def close(self) -> None:
        """Stop asking for access; the connections belong to `Outbound`."""
        await self._tokens.close()

    async def _send(self, access: str, body: bytes) -> Reply:
        headers = {"Authorization": f"Bearer {access}", "Content-Type": "application/json"}
        return await self._outbound.post(self._endpoint, headers, body)


def _message(token: str, push: Push) -> dict[str, Any]:
    """Return the body of ``messages:send``. A newer message push replaces an older one that waits; a call does not."""
    android: dict[str, str] = {
        "priority": "HIGH" if push.type is PushType.CALL else "NORMAL",
        "ttl": f"{min(max(push.ttl, 0), TTL_MAX)}s",
    }
    if push.type is PushType.MESSAGE:
        android["collapse_key"] = push.type.value
    return {"message": {"token": token, "data": {"type": push.type.value}, "android": android}}


def judge(reply: Reply) -> Outcome:
    """Tell what an answer of FCM means."""
    status, code = reply.status, _error_code(reply)
    # Of what Google writes, only the names of its errors that we know go further.
    detail = f"status {status}" + (f" {code}" if code in _CODES else "")
    if status == 200:
        return Outcome(Result.SENT)
    if code == "UNREGISTERED":
        return Outcome(Result.GONE, detail=detail)
    if code == "SENDER_ID_MISMATCH":
        return Outcome(Result.UNUSABLE, detail=f"{detail}: the token is for another Firebase project")
    if code == "INVALID_ARGUMENT" and status == 400 and _blames_token(reply):
        return Outcome(Result.UNUSABLE, detail=f"{detail}: this is no registration token")
    if status == 429 or code == "QUOTA_EXCEEDED":
        return Outcome(Result.BUSY, _QUOTA_WAIT if reply.retry_after is None else reply.retry_after, detail)
    if status == 503 or code == "UNAVAILABLE":
        return Outcome(Result.BUSY, reply.retry_after, detail)
    if status >= 500 or status == 408:
        return Outcome(Result.RETRY, reply.retry_after, detail)
    if code == "INVALID_ARGUMENT" and status == 400 and not _blamed(reply):
        return Outcome(Result.STRANGE, detail=f"{detail}: nothing is blamed")
    if status == 403:
        return Outcome(Result.REFUSED, REFUSED_WAIT, f"{detail}: the service account may not send, or may not yet")
    return Outcome(Result.REFUSED, detail=detail)


_CODES: Final = frozenset(
    (
        "INVALID_ARGUMENT",
        "UNREGISTERED",
        "SENDER_ID_MISMATCH",
        "QUOTA_EXCEEDED",
        "UNAVAILABLE",
        "INTERNAL",
        "THIRD_PARTY_AUTH_ERROR",
    )
)


def _details(reply: Reply) -> list[dict[str, Any]]:
    error = read_json(reply.body).get("error")
    details = error.get("details") if isinstance(error, dict) else None
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


def _error_code(reply: Reply) -> str:
    """Return FCM's own code for an error, "" where there is none. The status says less: 404 is also a wrong URL."""
    for each in _details(reply):
        if str(each.get("@type", "")).endswith("google.firebase.fcm.v1.FcmError"):
            return str(each.get("errorCode", ""))
    return ""


def _blamed(reply: Reply) -> list[Any]:
    """Return the fields that Google blames for an INVALID_ARGUMENT."""
    return [
        violation.get("field")
        for each in _details(reply)
        if isinstance(violations := each.get("fieldViolations"), list)
        for violation in violations
        if isinstance(violation, dict)
    ]


def _blames_token(reply: Reply) -> bool:
    """Tell whether an INVALID_ARGUMENT is about the token. Where another field is blamed, the fault is ours.

    Where none is, it is mostly the token, and Google's text says so; without that a fault of ours, or a change of
    theirs, would empty the registry.
    """
    if fields := _blamed(reply):
        return all(field == "message.token" for field in fields)
    error = read_json(reply.body).get("error")
    text = error.get("message") if isinstance(error, dict) else None
    return isinstance(text, str) and "not a valid FCM registration token" in text
