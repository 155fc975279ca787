"""FCM, against a stand-in that checks the OAuth assertion and the message as Google does."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keys.errors import KeyFileError
from peers.notifier.channel import Channel, Outcome, Push, PushType, Result
from peers.notifier.endpoints import AllowedHost
from peers.notifier.fcm import TTL_MAX, Fcm
from peers.notifier.google import ServiceAccount
from peers.notifier.outbound import Outbound, Timeouts
from tests.support.clients import run_async
from tests.support.google import PROJECT, Answered, Google, fcm_error
from tests.support.push_services import WAIT
from wire.commands import PushKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = b"dQw4w9WgXcQ:APA91b" + b"H" * 134
MESSAGE = Push(PushType.MESSAGE, 24 * 3600)
CALL = Push(PushType.CALL, 30)
SENT = Outcome(Result.SENT)


class Clock:
    def __init__(self) -> None:
        self.now = time()

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def fcm(google: Google, clock: Clock | None = None, **options: str) -> AsyncIterator[Fcm]:
    outbound = Outbound([AllowedHost.parse(google.url)], timeouts=Timeouts(WAIT, WAIT, WAIT))
    google.clock = clock or Clock()
    made = Fcm(outbound, google.account(), api=google.url, clock=google.clock, **options)
    try:
        yield made
    finally:
        await made.close()
        await outbound.close()


class TestTheMessage:
    @run_async
    async def test_by_type(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            interface: Channel = channel
            assert (interface.kind, interface.name) == (PushKind.FCM, "fcm")
            channel.check_token(TOKEN)
            assert await channel.push(TOKEN, MESSAGE) == SENT
            assert await channel.push(TOKEN, CALL) == SENT
            message, call = google.sent
            assert message == {
                "message": {
                    "token": TOKEN.decode(),
                    "data": {"type": "message"},
                    "android": {"priority": "NORMAL", "ttl": "86400s", "collapse_key": "message"},
                }
            }
            assert call == {
                "message": {
                    "token": TOKEN.decode(),
                    "data": {"type": "call"},
                    "android": {"priority": "HIGH", "ttl": "30s"},
                }
            }

    @run_async
    async def test_lifetimes_that_fcm_takes(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            for ttl in (-1, 0, 10**9):
                assert await channel.push(TOKEN, Push(PushType.CALL, ttl)) == SENT
            assert [each["message"]["android"]["ttl"] for each in google.sent] == ["0s", "0s", f"{TTL_MAX}s"]

    @run_async
    async def test_another_project(self) -> None:
        async with Google().running() as google, fcm(google, project="another-project") as channel:
            assert await channel.push(TOKEN, MESSAGE) == Outcome(
                Result.REFUSED, 60.0, "status 403: the service account may not send, or may not yet"
            )

    @pytest.mark.parametrize(
        "token",
        [b"", b"short", b"x" * 1025, b"x" * 30 + b"\n", b"x" * 30 + b'"', b"x" * 30 + b"\xff", b"x" * 30 + b"/"],
    )
    @run_async
    async def test_what_is_no_token_is_not_sent(self, token: bytes) -> None:
        async with Google().running() as google, fcm(google) as channel:
            with pytest.raises(ValueError, match=r"^this is no FCM registration token$"):
                channel.check_token(token)
            assert (await channel.push(token, MESSAGE)).result is Result.UNUSABLE
            assert not google.assertions


class TestAccess:
    @run_async
    async def test_one_assertion_for_many_pushes(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            assert await asyncio.gather(*(channel.push(TOKEN, MESSAGE) for _ in range(50))) == [SENT] * 50
            assert len(google.assertions) == 1
            (claims,) = google.assertions
            assert set(claims) == {"iss", "scope", "aud", "iat", "exp"}
            assert claims["aud"] == f"{google.url}/token"

    @run_async
    async def test_renewed_before_it_ends(self) -> None:
        clock = Clock()
        async with Google().running() as google, fcm(google, clock) as channel:
            await channel.push(TOKEN, MESSAGE)
            clock.now += google.life - 301
            await channel.push(TOKEN, MESSAGE)
            assert len(google.assertions) == 1
            clock.now += 1
            await channel.push(TOKEN, MESSAGE)
            assert len(google.assertions) == 2

    @run_async
    async def test_tokens_of_a_short_life_are_used_too(self) -> None:
        clock = Clock()
        async with Google().running() as google, fcm(google, clock) as channel:
            google.life = 10
            assert await channel.push(TOKEN, MESSAGE) == SENT
            assert await channel.push(TOKEN, MESSAGE) == SENT
            assert len(google.assertions) == 1
            clock.now += 6
            assert await channel.push(TOKEN, MESSAGE) == SENT
            assert len(google.assertions) == 2

    @run_async
    async def test_a_token_that_is_refused_is_renewed_once(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            await channel.push(TOKEN, MESSAGE)
            google.good.clear()
            assert await channel.push(TOKEN, MESSAGE) == SENT
            assert len(google.assertions) == 2

    @run_async
    async def test_and_not_twice(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            google.answers = [fcm_error(401, "UNAUTHENTICATED")] * 2
            assert await channel.push(TOKEN, MESSAGE) == Outcome(Result.REFUSED, None, "status 401")
            assert len(google.assertions) == 2

    @run_async
    async def test_apples_certificate_in_the_project_is_not_our_token(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            google.answers = [fcm_error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")]
            outcome = await channel.push(TOKEN, MESSAGE)
            assert outcome == Outcome(Result.REFUSED, None, "status 401 THIRD_PARTY_AUTH_ERROR")
            assert len(google.assertions) == 1

    @pytest.mark.parametrize(
        ("answered", "result", "wait"),
        [
            (Answered(400, b'{"error":"invalid_grant","error_description":"secret"}', {}), Result.REFUSED, 60.0),
            (Answered(401, b"", {}), Result.REFUSED, 60.0),
            (Answered(302, b"", {"Location": "https://x.example.org"}), Result.REFUSED, 60.0),
            (Answered(429, b"", {"Retry-After": "30"}), Result.BUSY, 30.0),
            (Answered(503, b"", {"Retry-After": "9"}), Result.RETRY, 9.0),
            (Answered(500, b"", {}), Result.RETRY, None),
            (Answered(200, b"garbage", {}), Result.RETRY, None),
            (Answered(200, b"[]", {}), Result.RETRY, None),
            (Answered(200, b'{"access_token": 5, "expires_in": 3599}', {}), Result.RETRY, None),
            (Answered(200, b'{"access_token": "x"}', {}), Result.RETRY, None),
            (Answered(200, b'{"access_token": "", "expires_in": 3599}', {}), Result.RETRY, None),
            (Answered(200, b'{"access_token": "a\\r\\nX: y", "expires_in": 3599}', {}), Result.RETRY, None),
            (Answered(200, b'{"access_token": "x", "expires_in": -1}', {}), Result.RETRY, None),
        ],
    )
    @run_async
    async def test_without_a_token_nothing_is_sent(
        self, answered: Answered, result: Result, wait: float | None
    ) -> None:
        clock = Clock()
        async with Google().running() as google, fcm(google, clock) as channel:
            google.grants = [answered]
            outcome = await channel.push(TOKEN, MESSAGE)
            assert (outcome.result, outcome.retry_after) == (result, wait)
            assert outcome.detail.startswith("token request: ")
            assert "secret" not in outcome.detail
            # A burst of pushes does not ask again for each of them.
            assert await channel.push(TOKEN, MESSAGE) == outcome
            assert not google.sent
            clock.now += 5
            assert await channel.push(TOKEN, MESSAGE) == SENT

    @run_async
    async def test_many_wait_for_one_answer_and_one_may_stop_waiting(self) -> None:
        async with Google().running() as google, fcm(google) as channel:
            google.gate = asyncio.Event()
            google.grants = [Answered(500, b"", {})]
            waiting = [asyncio.create_task(channel.push(TOKEN, MESSAGE)) for _ in range(10)]
            await asyncio.wait(waiting, timeout=0.05)
            waiting[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
            google.gate.set()
            outcomes = await asyncio.wait_for(asyncio.gather(*waiting[1:]), WAIT)
            assert outcomes == [Outcome(Result.RETRY, None, "token request: status 500")] * 9

    @run_async
    async def test_closing_while_waiting(self) -> None:
        async with Google().running() as google:
            google.gate = asyncio.Event()
            async with fcm(google) as channel:
                waiting = asyncio.create_task(channel.push(TOKEN, MESSAGE))
                await asyncio.wait([waiting], timeout=0.05)
                await asyncio.wait_for(channel.close(), WAIT)
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            google.gate.set()

    @run_async
    async def test_google_is_not_there(self) -> None:
        async with Google().running() as google:
            gone = google.url
        outbound = Outbound([AllowedHost.parse(gone)])
        channel = Fcm(outbound, google.account(), api=gone)
        assert await channel.push(TOKEN, MESSAGE) == Outcome(Result.RETRY, None, "token request: no connection")
        await channel.close()
        await outbound.close()

    @run_async
    async def test_a_service_account_leads_nowhere_inside(self) -> None:
        """Its file comes from the operator, and yet a mistake in it is not a way around the checks."""
        outbound = Outbound(lookup=lambda *_: [(2, "10.0.0.1")])
        async with Google().running() as google:
            with pytest.raises(ValueError, match="token_uri of the service account"):
                Fcm(outbound, google.account())
            channel = Fcm(outbound, google.account(token_uri="https://oauth2.googleapis.com/token"))
            outcome = await channel.push(TOKEN, MESSAGE)
            assert outcome == Outcome(Result.REFUSED, 60.0, "token request: the host has no public address")
        await channel.close()
        await outbound.close()


ENDS = [
    (fcm_error(404, "NOT_FOUND", "UNREGISTERED"), Outcome(Result.GONE, None, "status 404 UNREGISTERED")),
    (fcm_error(404, "NOT_FOUND"), Outcome(Result.REFUSED, None, "status 404")),
    (Answered(404, b"<!DOCTYPE html>", {}), Outcome(Result.REFUSED, None, "status 404")),
    (
        fcm_error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        Outcome(Result.UNUSABLE, None, "status 403 SENDER_ID_MISMATCH: the token is for another Firebase project"),
    ),
    (
        fcm_error(403, "PERMISSION_DENIED"),
        Outcome(Result.REFUSED, 60.0, "status 403: the service account may not send, or may not yet"),
    ),
    (
        # Nothing is blamed: a change of theirs that gives this for every token must not empty the registry.
        fcm_error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        Outcome(Result.STRANGE, None, "status 400 INVALID_ARGUMENT: nothing is blamed"),
    ),
    (
        fcm_error(
            400,
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
            text="The registration token is not a valid FCM registration token",
        ),
        Outcome(Result.UNUSABLE, None, "status 400 INVALID_ARGUMENT: this is no registration token"),
    ),
    (
        fcm_error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", field="message.token"),
        Outcome(Result.UNUSABLE, None, "status 400 INVALID_ARGUMENT: this is no registration token"),
    ),
    (
        fcm_error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", field="message.android.ttl"),
        Outcome(Result.REFUSED, None, "status 400 INVALID_ARGUMENT"),
    ),
    (fcm_error(400, "INVALID_ARGUMENT"), Outcome(Result.REFUSED, None, "status 400")),
    (fcm_error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), Outcome(Result.BUSY, 60.0, "status 429 QUOTA_EXCEEDED")),
    (
        fcm_error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after="0"),
        Outcome(Result.BUSY, 0.0, "status 429 QUOTA_EXCEEDED"),
    ),
    (Answered(429, b"", {"Retry-After": "90"}), Outcome(Result.BUSY, 90.0, "status 429")),
    (fcm_error(503, "UNAVAILABLE", "UNAVAILABLE"), Outcome(Result.BUSY, None, "status 503 UNAVAILABLE")),
    (Answered(503, b"", {"Retry-After": "12"}), Outcome(Result.BUSY, 12.0, "status 503")),
    (fcm_error(500, "INTERNAL", "INTERNAL"), Outcome(Result.RETRY, None, "status 500 INTERNAL")),
    (Answered(502, b"<html>", {"Retry-After": "3"}), Outcome(Result.RETRY, 3.0, "status 502")),
    (fcm_error(400, "X", "secret code"), Outcome(Result.REFUSED, None, "status 400")),
    (Answered(400, b'{"error": "secret"}', {}), Outcome(Result.REFUSED, None, "status 400")),
    (Answered(400, b'{"error": {"details": ["x", 5, {"@type": 5}]}}', {}), Outcome(Result.REFUSED, None, "status 400")),
    (Answered(400, b"[" * 10_000, {}), Outcome(Result.REFUSED, None, "status 400")),
    (Answered(302, b"", {"Location": "https://x.example.org"}), Outcome(Result.REFUSED, None, "status 302")),
    (Answered(413, b"", {}), Outcome(Result.REFUSED, None, "status 413")),
]  # fmt: skip


@pytest.mark.parametrize(("answered", "outcome"), ENDS)
@run_async
async def test_how_it_ends(answered: Answered, outcome: Outcome) -> None:
    async with Google().running() as google, fcm(google) as channel:
        google.answers = [answered]
        assert await channel.push(TOKEN, MESSAGE) == outcome
        assert len(google.sent) == 1
        assert await channel.push(TOKEN, MESSAGE) == SENT


class TestTheServiceAccount:
    def _file(self, path: Path, **changes: object) -> Path:
        account = Google().account(token_uri="https://oauth2.googleapis.com/token")
        told = {
            "type": "service_account",
            "project_id": account.project_id,
            "private_key_id": account.private_key_id,
            "private_key": account.private_key,
            "client_email": account.client_email,
            "token_uri": account.token_uri,
            "universe_domain": "googleapis.com",
        }
        path.touch(0o600)
        path.write_text(json.dumps({name: value for name, value in (told | changes).items() if value is not None}))
        return path

    def test_read(self, tmp_path: Path) -> None:
        account = ServiceAccount.read(self._file(tmp_path / "account.json"))
        assert account.project_id == PROJECT
        assert "PRIVATE KEY" not in repr(account)
        Fcm(Outbound(), account)

    def test_open_to_others(self, tmp_path: Path) -> None:
        path = self._file(tmp_path / "account.json")
        path.chmod(0o640)
        with pytest.raises(KeyFileError, match="chmod 600"):
            ServiceAccount.read(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match="the Google Cloud console gives it"):
            ServiceAccount.read(tmp_path / "account.json")

    @pytest.mark.parametrize("content", ["", "[]", "{", "5", '{"type": "authorized_user"}', "[" * 10_000])
    def test_other_files(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "account.json"
        path.touch(0o600)
        path.write_text(content)
        with pytest.raises(KeyFileError, match="is not the JSON file of a service account"):
            ServiceAccount.read(path)

    @pytest.mark.parametrize("name", ["client_email", "private_key", "private_key_id", "project_id", "token_uri"])
    @pytest.mark.parametrize("value", [None, 5, ""])
    def test_what_is_missing_is_named(self, tmp_path: Path, name: str, value: object) -> None:
        with pytest.raises(KeyFileError, match=f"{name} is missing"):
            ServiceAccount.read(self._file(tmp_path / "account.json", **{name: value}))

    def test_keys_that_do_not_sign(self, tmp_path: Path) -> None:
        other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for number, secret in enumerate(
            ["secret", "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n", other.decode()]
        ):
            with pytest.raises(KeyFileError, match="private_key is no RSA key in PEM") as caught:
                ServiceAccount.read(self._file(tmp_path / f"{number}.json", private_key=secret))
            assert "secret" not in str(caught.value).removeprefix(str(tmp_path))

    @pytest.mark.parametrize("project", ["", "x", "../other", "a/b-project", "My-Project", "project-", "a" * 70])
    def test_projects(self, project: str) -> None:
        account = Google().account(token_uri="https://oauth2.googleapis.com/token")
        with pytest.raises(ValueError, match="a Firebase project is named like"):
            Fcm(Outbound(), account, project=project)
