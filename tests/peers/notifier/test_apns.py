"""APNs: what is sent and what answers mean, by aioapns over HTTP/2 and TLS to a server of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keys.errors import KeyFileError
from peers.notifier.apns import SANDBOX, Answer, Apns, ApnsKey, ApnsServer, judge
from peers.notifier.apns_client import ApnsClient
from peers.notifier.channel import Channel, Outcome, Push, PushType, Result
from tests.support.apple import KEY_ID, PEM, TEAM_ID, TOPIC, Apple, Said, apns_key, reason
from tests.support.clients import run_async
from tests.support.push_services import WAIT
from wire.commands import PushKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEVICE, VOIP = b"0123456789abcdef" * 4, b"FEDCBA9876543210" * 4
MESSAGE = Push(PushType.MESSAGE, 24 * 3600)
CALL = Push(PushType.CALL, 30)
SENT = Outcome(Result.SENT)
NO_ANSWER = Outcome(Result.RETRY, None, "no answer")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def apns(apple: Apple, *, seconds: float = WAIT, clock: Clock | None = None) -> AsyncIterator[Apns]:
    key = apns_key()
    client = ApnsClient(key, TOPIC, apple.server, clock or Clock(), tls=apple.tls(), timeout=seconds)
    made = Apns(key, TOPIC, client=client)
    try:
        yield made
    finally:
        await asyncio.wait_for(made.close(), WAIT)


class TestThePush:
    @run_async
    async def test_a_message_is_a_background_push(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            interface: Channel = channel
            assert (interface.kind, interface.name) == (PushKind.APNS, "apns")
            channel.check_token(DEVICE)
            assert await channel.push(DEVICE, MESSAGE) == SENT
            (got,) = apple.requests
            assert (got.headers[":method"], got.headers[":path"]) == ("POST", f"/3/device/{DEVICE.decode()}")
            assert got.told() == {"aps": {"content-available": 1}, "type": "message"}
            assert got.headers["apns-push-type"] == "background"
            assert got.headers["apns-priority"] == "5"
            assert got.headers["apns-topic"] == TOPIC
            assert got.headers["apns-collapse-id"] == "message"
            assert abs(int(got.headers["apns-expiration"]) - time() - MESSAGE.ttl) < WAIT

    @run_async
    async def test_a_call_without_a_voip_token_is_an_alert_of_a_key(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            assert await channel.push(DEVICE, CALL) == SENT
            (got,) = apple.requests
            assert got.headers[":path"] == f"/3/device/{DEVICE.decode()}"
            assert got.told()["type"] == "call"
            assert got.told()["aps"]["alert"] == {"loc-key": "CALL"}
            assert "content-available" not in got.told()["aps"]
            assert (got.headers["apns-push-type"], got.headers["apns-priority"]) == ("alert", "10")
            assert got.headers["apns-topic"] == TOPIC
            assert "apns-collapse-id" not in got.headers
            assert abs(int(got.headers["apns-expiration"]) - time() - CALL.ttl) < WAIT

    @run_async
    async def test_with_a_voip_token_calls_and_nothing_else_go_there(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            token = DEVICE + b"," + VOIP
            channel.check_token(token)
            assert await channel.push(token, CALL) == SENT
            assert await channel.push(token, MESSAGE) == SENT
            call, message = apple.requests
            assert call.headers[":path"] == f"/3/device/{VOIP.decode()}"
            assert call.told() == {"aps": {}, "type": "call"}
            assert (call.headers["apns-push-type"], call.headers["apns-priority"]) == ("voip", "10")
            assert call.headers["apns-topic"] == f"{TOPIC}.voip"
            assert message.headers[":path"] == f"/3/device/{DEVICE.decode()}"
            assert message.headers["apns-push-type"] == "background"

    @pytest.mark.parametrize(
        "token",
        [b"", b"0" * 63, b"0" * 201, b"g" * 64, b"0" * 64 + b"\n", b"0" * 64 + b",", b"," + b"0" * 64,
         b"0" * 64 + b",1", DEVICE + b"," + VOIP + b"," + VOIP, b"../" + b"0" * 64, b"\xff" * 64,
         DEVICE + b", " + VOIP],
    )  # fmt: skip
    @run_async
    async def test_what_is_no_token_is_not_sent(self, token: bytes, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            with pytest.raises(ValueError, match="this is no APNs token"):
                channel.check_token(token)
            assert (await channel.push(token, MESSAGE)).result is Result.UNUSABLE
            assert not apple.connections


ENDS = [
    (400, "BadDeviceToken", Outcome(Result.UNUSABLE, None, "status 400 BadDeviceToken")),
    (400, "DeviceTokenNotForTopic", Outcome(Result.REFUSED, None, "status 400 DeviceTokenNotForTopic")),
    (400, "BadTopic", Outcome(Result.REFUSED, None, "status 400 BadTopic")),
    (400, "IdleTimeout", Outcome(Result.RETRY, None, "status 400 IdleTimeout")),
    (400, "something new and secret", Outcome(Result.REFUSED, None, "status 400")),
    (403, "InvalidProviderToken", Outcome(Result.REFUSED, None, "status 403 InvalidProviderToken")),
    (403, "ExpiredProviderToken", Outcome(Result.RETRY, None, "status 403 ExpiredProviderToken")),
    (404, "BadPath", Outcome(Result.REFUSED, None, "status 404")),
    (410, "Unregistered", Outcome(Result.GONE, None, "status 410 Unregistered")),
    (410, "ExpiredToken", Outcome(Result.GONE, None, "status 410 ExpiredToken")),
    (410, "", Outcome(Result.GONE, None, "status 410")),
    (413, "PayloadTooLarge", Outcome(Result.REFUSED, None, "status 413")),
    (429, "TooManyRequests", Outcome(Result.RETRY, 60.0, "status 429 TooManyRequests")),
    (429, "TooManyProviderTokenUpdates", Outcome(Result.BUSY, 1200.0, "status 429 TooManyProviderTokenUpdates")),
    (429, "", Outcome(Result.RETRY, 60.0, "status 429")),
    (500, "InternalServerError", Outcome(Result.RETRY, None, "status 500 InternalServerError")),
    (502, "", Outcome(Result.RETRY, None, "status 502")),
    (503, "ServiceUnavailable", Outcome(Result.BUSY, None, "status 503 ServiceUnavailable")),
    (503, "Shutdown", Outcome(Result.RETRY, None, "status 503 Shutdown")),
    (503, "", Outcome(Result.BUSY, None, "status 503")),
]


class TestHowItEnds:
    @pytest.mark.parametrize(("status", "text", "outcome"), ENDS)
    def test_by_status_and_reason(self, status: int, text: str, outcome: Outcome) -> None:
        assert judge(Answer(status, text)) == outcome

    @pytest.mark.parametrize(
        ("said", "outcome"),
        [
            (reason(410, "Unregistered"), Outcome(Result.GONE, None, "status 410 Unregistered")),
            (Said(410), Outcome(Result.GONE, None, "status 410")),
            (Said(503, (b"",)), Outcome(Result.BUSY, None, "status 503")),
            (
                Said(400, (b'{"reas', b'on": "BadDevice', b'Token"}')),
                Outcome(Result.UNUSABLE, None, "status 400 BadDeviceToken"),
            ),
            (
                Said(400, (b'{"reason": "BadDeviceToken"}',), with_id=False),
                Outcome(Result.UNUSABLE, None, "status 400 BadDeviceToken"),
            ),
            (Said(200, with_id=False), SENT),
            (Said(500, (b"<html>garbage",)), Outcome(Result.RETRY, None, "status 500")),
            (Said(500, (b"[5]",)), Outcome(Result.RETRY, None, "status 500")),
            (Said(500, (b'{"reason": 5}',)), Outcome(Result.RETRY, None, "status 500")),
            (Said(500, (b"[" * 16_000,)), Outcome(Result.RETRY, None, "status 500")),
            (Said(500, (b"\xff",)), Outcome(Result.RETRY, None, "status 500")),
            (Said(-1), NO_ANSWER),
            (Said(-2), NO_ANSWER),
        ],
    )
    @run_async
    async def test_over_the_wire(self, said: Said, outcome: Outcome, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            apple.answers = [said]
            assert await channel.push(DEVICE, MESSAGE) == outcome
            assert len(apple.requests) == 1
            assert await channel.push(DEVICE, MESSAGE) == SENT, "whatever it was, the next one is not harmed"
            assert apple.connections == (2 if said.status == -2 else 1)


class TestTheConnection:
    @run_async
    async def test_one_for_many_pushes_and_no_more_streams_than_apple_takes(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            apple.streams = 10
            assert await asyncio.gather(*(channel.push(DEVICE, CALL) for _ in range(200))) == [SENT] * 200
            assert apple.connections == 1
            assert apple.most_streams <= 10

    @run_async
    async def test_one_signed_token_for_all_connections(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            for _ in range(3):
                assert await channel.push(DEVICE, MESSAGE) == SENT
                apple.drop()
                while await channel.push(DEVICE, MESSAGE) != SENT:  # until we have heard of it
                    pass
            assert apple.connections >= 3
            assert len({request.headers["authorization"] for request in apple.requests}) == 1

    @run_async
    async def test_another_token_after_twenty_minutes_at_the_earliest(self, tmp_path: Path) -> None:
        clock = Clock()
        async with Apple(tmp_path).running() as apple, apns(apple, clock=clock) as channel:
            expired = reason(403, "ExpiredProviderToken")
            apple.answers = [expired, Said(), expired, Said()]
            for _ in range(2):
                await channel.push(DEVICE, MESSAGE)
            clock.now += 20 * 60
            for _ in range(2):
                await channel.push(DEVICE, MESSAGE)
            first, second, third, fourth = (request.headers["authorization"] for request in apple.requests)
            assert first == second == third != fourth

    @run_async
    async def test_errors_without_end_do_not_stop_it(self, tmp_path: Path) -> None:
        """More of them than the window of the connection: it has to be given back."""
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            for _ in range(40):
                apple.answers = [Said(400, (b" " * 4000 + b'{"reason": "BadDeviceToken"}',))]
                assert (await channel.push(DEVICE, MESSAGE)).result is not Result.RETRY
            assert apple.connections == 1

    @run_async
    async def test_nothing_is_remembered_of_what_is_over(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            apple.answers = [Said(), reason(400, "BadDeviceToken"), Said(500), Said(-1), Said()]
            for _ in range(5):
                await channel.push(DEVICE, MESSAGE)
            assert channel._client._pool is not None
            connection = channel._client._pool._connection
            assert connection is not None
            assert apple.connections == 1
            assert not connection.requests
            assert not connection.request_streams
            assert not connection.request_statuses
            assert not connection._answers
            assert not channel._client._sending

    @run_async
    async def test_silence_ends_and_the_next_push_has_a_connection_of_its_own(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple, seconds=0.2) as channel:
            apple.answers = [Said(0)]
            assert await channel.push(DEVICE, CALL) == NO_ANSWER
            while (await channel.push(DEVICE, CALL)) != SENT:
                pass
            assert apple.connections == 2

    @run_async
    async def test_a_server_that_says_nothing_at_all(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple:
            apple.before_settings = asyncio.Event()
            async with apns(apple, seconds=0.1) as channel:
                assert await channel.push(DEVICE, CALL) == NO_ANSWER
                apple.drop()
            apple.before_settings.set()

    @run_async
    async def test_nobody_there(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple:
            pass
        async with apns(apple) as channel:
            assert await asyncio.gather(*(channel.push(DEVICE, CALL) for _ in range(50))) == [NO_ANSWER] * 50

    @run_async
    async def test_a_certificate_of_somebody_else(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple:
            channel = Apns(apns_key(), TOPIC, server=apple.server)  # trusts whom the system trusts
            assert await channel.push(DEVICE, CALL) == NO_ANSWER
            await channel.close()
            assert not apple.requests

    @run_async
    async def test_whoever_stops_waiting_harms_nobody(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            assert await channel.push(DEVICE, MESSAGE) == SENT
            impatient = asyncio.create_task(channel.push(DEVICE, CALL))
            await asyncio.sleep(0)
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            assert await channel.push(DEVICE, MESSAGE) == SENT
            assert apple.connections == 1

    @run_async
    async def test_closing_ends_what_waits(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            assert await channel.push(DEVICE, MESSAGE) == SENT
            apple.answers = [Said(0)]
            apple.arrived.clear()
            waiting = asyncio.create_task(channel.push(DEVICE, CALL))
            await asyncio.wait_for(apple.arrived.wait(), WAIT)
            await asyncio.wait_for(channel.close(), WAIT)
            assert await asyncio.wait_for(waiting, WAIT) == NO_ANSWER

    @run_async
    async def test_closing_before_it_began(self, tmp_path: Path) -> None:
        async with Apple(tmp_path).running() as apple, apns(apple) as channel:
            for ticks in range(6):
                waiting = asyncio.create_task(channel.push(DEVICE, CALL))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                await asyncio.wait_for(channel.close(), WAIT)
                assert await asyncio.wait_for(waiting, WAIT) in (NO_ANSWER, SENT)
            assert await channel.push(DEVICE, CALL) == SENT


class TestTheKey:
    def _file(self, path: Path, content: bytes = PEM.encode()) -> Path:
        path.touch(0o600)
        path.write_bytes(content)
        return path

    @run_async
    async def test_read(self, tmp_path: Path) -> None:
        key = ApnsKey.read(self._file(tmp_path / "AuthKey.p8"), KEY_ID, TEAM_ID)
        assert key == apns_key()
        assert "PRIVATE" not in repr(key)
        for server in (ApnsServer(), SANDBOX):
            await Apns(key, TOPIC, server=server).close()
        assert (ApnsServer().host, SANDBOX.host) == ("api.push.apple.com", "api.sandbox.push.apple.com")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match="Apple's developer pages give it"):
            ApnsKey.read(tmp_path / "AuthKey.p8", KEY_ID, TEAM_ID)

    def test_open_to_others(self, tmp_path: Path) -> None:
        path = self._file(tmp_path / "AuthKey.p8")
        path.chmod(0o644)
        with pytest.raises(KeyFileError, match="chmod 600"):
            ApnsKey.read(path, KEY_ID, TEAM_ID)

    def test_binary(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match=r"is no \.p8 file"):
            ApnsKey.read(self._file(tmp_path / "AuthKey.p8", b"\xff"), KEY_ID, TEAM_ID)

    @pytest.mark.parametrize("bad", ["", "abc123defg", "ABC123DEF", "ABC123DEFGH", "ABC123DEF\n"])
    def test_ids(self, bad: str) -> None:
        with pytest.raises(ValueError, match="key id has ten characters"):
            ApnsKey(PEM, bad, TEAM_ID)
        with pytest.raises(ValueError, match="team id has ten characters"):
            ApnsKey(PEM, KEY_ID, bad)

    def test_keys_that_do_not_sign(self) -> None:
        others = [
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
        ]
        for pem in ("", "secret", "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n", *others):
            with pytest.raises(ValueError, match=r"no P-256 key in PEM") as caught:
                Apns(apns_key(pem), TOPIC)
            assert "secret" not in str(caught.value)
            assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "topic", ["", "app", "org..app", "org.example.app\n", "org/example.app", "org.example.app "]
    )
    def test_topics(self, topic: str) -> None:
        with pytest.raises(ValueError, match="an APNs topic is the app's bundle id"):
            Apns(apns_key(), topic)

    def test_without_the_extra_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peers.notifier.apns_client", None)
        with pytest.raises(ImportError, match=r"needs the extra `apns`: pip install"):
            Apns(apns_key(), TOPIC)


@run_async
async def test_logs_hold_no_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at the level at which the libraries tell everything."""
    caplog.set_level(0)
    async with Apple(tmp_path).running() as apple, apns(apple) as channel:
        apple.answers = [Said(), reason(410, "Unregistered"), Said(-1), Said(-2)]
        for _ in range(4):
            await channel.push(DEVICE + b"," + VOIP, CALL)
            await channel.push(DEVICE, MESSAGE)
    assert caplog.text
    for secret in (DEVICE.decode(), VOIP.decode(), json.dumps("PRIVATE")):
        assert secret not in caplog.text
