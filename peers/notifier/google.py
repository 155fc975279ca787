"""Access to Google's interfaces: a service account, and tokens for it (RFC 7523; Google's OAuth 2.0 for servers).

google-auth signs; its own transports are not used, so that every request of the notifier goes one checked way.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

from google.auth import jwt
from google.auth.crypt import RSASigner, Signer

from keys.errors import KeyFileError
from keys.private_file import read_private
from peers.notifier.channel import Outcome, Result
from peers.notifier.outbound import Forbidden, Outbound, Reply, Unreachable

GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_LIFE: Final = 3600
"""Seconds; the most that Google takes."""
_MARGIN: Final = 300.0
"""Seconds before its end from which a token is not used any more: clocks differ, and pushes wait on the way."""
_PAUSE: Final = 5.0
"""Seconds for which the answer to a failed renewal holds for everybody: a burst of pushes is one question."""
REFUSED_WAIT: Final = 60.0
"""Seconds until Google is asked again that refused us: a role that was just given takes minutes to count, a clock that
was wrong is set, a resolver that lied is mended. The operator is told all the same."""
_FIELDS: Final = ("client_email", "private_key", "private_key_id", "project_id", "token_uri")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What Google gives for a service account, as far as it is needed.

    Raises:
        ValueError: the private key is none that signs.
    """

    client_email: str
    private_key: str = field(repr=False)
    private_key_id: str
    project_id: str
    token_uri: str
    signer: Signer = field(init=False, repr=False, compare=False)
    """What signs by the private key."""

    def __post_init__(self) -> None:
        try:
            signer: Signer = RSASigner.from_string(self.private_key, self.private_key_id)  # type: ignore[no-untyped-call]
            signer.sign(b"")  # type: ignore[no-untyped-call] # loading takes any kind of key
        except (ValueError, TypeError, AttributeError):
            raise ValueError("private_key is no RSA key in PEM") from None
        object.__setattr__(self, "signer", signer)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the JSON file that the Google Cloud console gives.

        Raises:
            KeyFileError: it cannot be read, others may read it, or it is no such file; the text repeats nothing of it.
        """
        if not path.exists():  # the text of `read_private` would send people to keygen
            raise KeyFileError(
                f"there is no file {path}; the Google Cloud console gives it, as a key of a service account"
            )
        try:
            told = json.loads(read_private(path))
        except (ValueError, RecursionError):
            raise KeyFileError(f"{path} is not the JSON file of a service account") from None
        if not isinstance(told, dict) or told.get("type") != "service_account":
            raise KeyFileError(f'{path} is not the JSON file of a service account ("type": "service_account")')
        values: dict[str, str] = {}
        for name in _FIELDS:
            value = told.get(name)
            if not isinstance(value, str) or not value:
                raise KeyFileError(f"{path}: {name} is missing")
            values[name] = value
        try:
            return cls(**values)
        except ValueError as error:
            raise KeyFileError(f"{path}: {error}") from None


class NoAccess(Exception):
    """There is no token now; the outcome says why, and whether there may be one later."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class AccessTokens:
    """Gets tokens, keeps the last one, and asks once for all who wait.

    Args:
        outbound: sends.
        account: whose tokens.
        scope: what they are for.
        clock: seconds since 1970.

    Raises:
        ValueError: the account's token_uri is no URL that we send to.
    """

    def __init__(
        self, outbound: Outbound, account: ServiceAccount, scope: str, clock: Callable[[], float] = time.time
    ) -> None:
        try:
            self._endpoint = outbound.check(account.token_uri, ours=True)
        except ValueError as error:
            raise ValueError(f"token_uri of the service account: {error}") from None
        self._outbound = outbound
        self._account = account
        self._signer = account.signer
        self._scope = scope
        self._clock = clock
        self._token = ""
        self._good_until = 0.0
        self._failed_until = 0.0
        self._failure = Outcome(Result.RETRY)
        self._renewal: asyncio.Task[None] | None = None

    async def get(self) -> str:
        """Return a token that is good for some minutes at least.

        Raises:
            NoAccess: there is none.
        """
        if self._clock() < self._good_until:
            return self._token
        if self._clock() >= self._failed_until or self._renewal is not None:
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew())
                self._renewal.add_done_callback(self._renewed)
            # Whoever stops waiting must not stop it for the others.
            await asyncio.shield(self._renewal)
            if self._clock() < self._good_until:
                return self._token
        raise NoAccess(self._failure)

    def discard(self, token: str) -> None:
        """Do not give this token again: it was refused."""
        if token == self._token:
            self._good_until = 0.0

    async def close(self) -> None:
        """Stop asking."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewal = None
        if not task.cancelled():
            task.result()

    async def _renew(self) -> None:
        now = self._clock()
        try:
            reply = await self._outbound.post(
                self._endpoint,
                {"Content-Type": "application/x-www-form-urlencoded"},
                urlencode({"grant_type": GRANT, "assertion": self._assertion(int(now))}).encode(),
            )
        except Unreachable as error:
            failure = Outcome(Result.RETRY, detail=f"token request: {error}")
        except Forbidden as error:
            failure = Outcome(Result.REFUSED, REFUSED_WAIT, f"token request: {error}")
        else:
            taken = _read_token(reply)
            if taken is not None:
                self._token, life = taken
                # At least some seconds, or a token of a short life would be asked for again with each push.
                self._good_until = now + max(life - _MARGIN, min(life, _PAUSE))
                return
            failure = _judge(reply)
        self._failure = failure
        self._failed_until = self._clock() + _PAUSE

    def _assertion(self, now: int) -> str:
        claims = {
            "iss": self._account.client_email,
            "scope": self._scope,
            "aud": self._account.token_uri,
            "iat": now,
            "exp": now + _ASSERTION_LIFE,
        }
        signed: bytes = jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        return signed.decode()


def _read_token(reply: Reply) -> tuple[str, float] | None:
    """Return token and life in seconds of an answer that has both."""
    if reply.status != 200:
        return None
    told = read_json(reply.body)
    token, life = told.get("access_token"), told.get("expires_in")
    if not isinstance(token, str) or not isinstance(life, int | float) or life <= 0:
        return None
    # It goes into a header.
    return (token, float(life)) if token and token.isascii() and token.isprintable() else None


def _judge(reply: Reply) -> Outcome:
    detail = f"token request: status {reply.status}"
    if reply.status == 429:
        return Outcome(Result.BUSY, reply.retry_after, detail)
    if reply.status >= 500 or reply.status == 200:
        return Outcome(Result.RETRY, reply.retry_after, detail)
    return Outcome(
        Result.REFUSED,
        REFUSED_WAIT,
        f"{detail}: Google does not take the service account's key, or our clock is wrong",
    )


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds, {} where it holds none."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
