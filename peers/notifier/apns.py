"""Apple Push Notification service (kind 4), by aioapns: the extra `apns`.

What Apple learns: the address of the notifier and the app's topic, the token, which is one app on one device and is
known to it with that device's address and its owner's account, the moment of each push, and whether it is a call. Not
who wrote, not what, no id of the relay.

A message is a *background* push: no text that Apple would carry, nothing on the screen before the app itself has
fetched what there is. The price: iOS delivers few of them an hour, and none to an app that its user swiped away.

A call has to ring now. Where the app registered a VoIP token too (PushKit), it is a *voip* push to that: iOS starts
the app and wants it to report the call (CallKit) at once, which is why such a push is never sent for a message. Where
it did not, it is a visible *alert* whose text is a key, ``CALL``, that the app translates: the only other kind that
comes through at once.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from keys.errors import KeyFileError
from keys.private_file import read_private
from peers.notifier.channel import Outcome, Push, PushType, Result
from wire.commands import PushKind

if TYPE_CHECKING:
    from peers.notifier.apns_client import ApnsClient

_TOKEN: Final = re.compile(rb"([0-9a-fA-F]{64,200})(?:,([0-9a-fA-F]{64,200}))?")
_NAME: Final = re.compile(r"[A-Z0-9]{10}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_CALL_PRIORITY: Final = 10
_BACKGROUND_PRIORITY: Final = 5
"""The only one that Apple takes for background pushes."""
_DEVICE_WAIT: Final = 60.0
_UPDATES_WAIT: Final = 20 * 60.0
"""Seconds between two of our tokens that Apple asks for."""


@dataclass(frozen=True, slots=True)
class ApnsKey:
    """A key for token-based connections, as Apple's developer pages give it.

    Args:
        pem: the content of the ``.p8`` file.
        key_id: its ten characters.
        team_id: the team's ten characters.

    Raises:
        ValueError: one of them is something else.
    """

    pem: str = field(repr=False)
    key_id: str
    team_id: str

    def __post_init__(self) -> None:
        for name, value in (("key id", self.key_id), ("team id", self.team_id)):
            if not _NAME.fullmatch(value):
                raise ValueError(f"an APNs {name} has ten characters, A-Z and 0-9")

    @classmethod
    def read(cls, path: Path, key_id: str, team_id: str) -> Self:
        """Read the ``.p8`` file.

        Raises:
            KeyFileError: it cannot be read, or others may read it.
            ValueError: the ids are none.
        """
        if not path.exists():  # the text of `read_private` would send people to keygen
            raise KeyFileError(f"there is no file {path}; Apple's developer pages give it, as a key for APNs")
        try:
            pem = read_private(path).decode("ascii")
        except UnicodeDecodeError:
            raise KeyFileError(f"{path} is no .p8 file") from None
        return cls(pem, key_id, team_id)


@dataclass(frozen=True, slots=True)
class ApnsServer:
    """Where Apple listens. Tokens of apps that Xcode installed are for the sandbox, all others for production."""

    host: str = "api.push.apple.com"
    port: int = 443


SANDBOX: Final = ApnsServer("api.sandbox.push.apple.com")


@dataclass(frozen=True, slots=True)
class Answer:
    """What Apple said: the HTTP status, 0 where it said nothing, and the reason, "" where it gave none."""

    status: int
    reason: str = ""


class Apns:
    """The channel for iOS apps.

    A token is the device token in hexadecimal digits; "," and the VoIP token may follow.

    Args:
        key: signs for us.
        topic: the app's bundle id.
        server: Apple's.
        clock: seconds that only grow.
        client: for tests; by default one of aioapns.

    Raises:
        ValueError: the key signs nothing, or the topic is none.
        ImportError: the extra `apns` is not installed; the text says how to.
    """

    kind: int = PushKind.APNS
    name: str = "apns"

    def __init__(
        self,
        key: ApnsKey,
        topic: str,
        *,
        server: ApnsServer | None = None,
        clock: Callable[[], float] = time.monotonic,
        client: "ApnsClient | None" = None,
    ) -> None:
        if not _TOPIC.fullmatch(topic):
            raise ValueError("an APNs topic is the app's bundle id, as in org.example.app")
        self._topic = topic
        if client is None:
            try:
                from peers.notifier.apns_client import ApnsClient
            except ImportError:
                raise ImportError(
                    "the channel apns needs the extra `apns`: pip install -c constraints.txt '.[notifier,apns]'"
                ) from None
            client = ApnsClient(key, topic, server or ApnsServer(), clock)
        self._client = client

    def check_token(self, token: bytes) -> None:
        """Check the form of one token or two. See `peers.notifier.channel.Channel.check_token`."""
        _split(token)

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push. See `peers.notifier.channel.Channel.push`."""
        try:
            device, voip = _split(token)
        except ValueError as error:
            return Outcome(Result.UNUSABLE, detail=str(error))
        ttl = max(push.ttl, 0)
        if push.type is PushType.MESSAGE:
            answer = await self._client.send(
                device,
                {"aps": {"content-available": 1}, "type": push.type.value},
                kind="background",
                topic=self._topic,
                priority=_BACKGROUND_PRIORITY,
                ttl=ttl,
                collapse=push.type.value,
            )
        elif voip is not None:
            answer = await self._client.send(
                voip,
                {"aps": {}, "type": push.type.value},
                kind="voip",
                topic=f"{self._topic}.voip",
                priority=_CALL_PRIORITY,
                ttl=ttl,
            )
        else:
            answer = await self._client.send(
                device,
                _ALERT | {"type": push.type.value},
                kind="alert",
                topic=self._topic,
                priority=_CALL_PRIORITY,
                ttl=ttl,
            )
        return judge(answer)

    async def close(self) -> None:
        """Close the connections to Apple."""
        await self._client.close()


_ALERT: Final[dict[str, Any]] = {
    "aps": {"alert": {"loc-key": "CALL"}, "sound": "default", "interruption-level": "time-sensitive"}
}
"""A text that the app has in its user's language: Apple carries a key of it alone."""


def judge(answer: Answer) -> Outcome:
    """Tell what an answer of APNs means, by Apple's table of statuses and reasons."""
    status, reason = answer.status, answer.reason
    detail = f"status {status} {reason}" if reason in _REASONS else f"status {status}"
    if status == 0:
        return Outcome(Result.RETRY, detail="no answer")
    if status == 200:
        return Outcome(Result.SENT)
    if reason in _REASONS:
        result, wait = _REASONS[reason]
        return Outcome(result, wait, detail)
    if status == 410:
        return Outcome(Result.GONE, detail=detail)
    if status == 429:
        return Outcome(Result.RETRY, _DEVICE_WAIT, detail)
    if status == 503:
        return Outcome(Result.BUSY, detail=detail)
    return Outcome(Result.RETRY if status >= 500 else Result.REFUSED, detail=detail)


_REASONS: Final[dict[str, tuple[Result, float | None]]] = {
    "Unregistered": (Result.GONE, None),
    "ExpiredToken": (Result.GONE, None),
    "BadDeviceToken": (Result.UNUSABLE, None),
    # Also what comes of a topic that the operator got wrong: no reason to forget every token there is.
    "DeviceTokenNotForTopic": (Result.REFUSED, None),
    "TooManyRequests": (Result.RETRY, _DEVICE_WAIT),  # for this device
    "TooManyProviderTokenUpdates": (Result.BUSY, _UPDATES_WAIT),
    "ExpiredProviderToken": (Result.RETRY, None),  # the client has made another by then
    "InvalidProviderToken": (Result.REFUSED, None),
    "MissingProviderToken": (Result.REFUSED, None),
    "BadEnvironmentKeyInToken": (Result.REFUSED, None),
    "Forbidden": (Result.REFUSED, None),
    "TopicDisallowed": (Result.REFUSED, None),
    "BadTopic": (Result.REFUSED, None),
    "MissingTopic": (Result.REFUSED, None),
    "IdleTimeout": (Result.RETRY, None),
    "InternalServerError": (Result.RETRY, None),
    "ServiceUnavailable": (Result.BUSY, None),
    "Shutdown": (Result.RETRY, None),  # of that server, not of the service
}


def _split(token: bytes) -> tuple[str, str | None]:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError('this is no APNs token: hexadecimal digits, and a second one after ","')
    device, voip = match.groups()
    return device.decode(), voip.decode() if voip is not None else None
