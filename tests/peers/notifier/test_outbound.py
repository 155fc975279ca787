"""What goes out, and to where: on real sockets of 127.0.0.1, with names that resolve as the test says."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from peers.notifier import outbound as outbound_module
from peers.notifier.addresses import parse_nat64
from peers.notifier.channel import Push, PushType
from peers.notifier.endpoints import AllowedHost
from peers.notifier.fcm import Fcm
from peers.notifier.outbound import Forbidden, Outbound, Timeouts, Unreachable, _checked_socket
from peers.notifier.resolving import ForbiddenAddress, Resolver
from tests.support.certificates import make_certificate, trusting
from tests.support.clients import run_async
from tests.support.google import Google
from tests.support.push_services import PATIENT, WAIT, PushService, allow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv6Network
    from pathlib import Path

    from peers.notifier.resolving import Lookup


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[tuple[str, int]]]]:
    """A bare TCP port of 127.0.0.1, and who connected to it."""
    seen: list[tuple[str, int]] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def lookup(*answers: list[str]) -> Lookup:
    """Names resolve to these addresses, one answer after the other; the last one stays."""
    left = list(answers)

    def ask(host: str, port: int) -> list[tuple[int, str]]:
        now = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in now]

    return ask


class TestTheWayThere:
    @run_async
    async def test_allowed_hosts_are_reached(self) -> None:
        async with PushService().answer(201, b"made", Retry_After="7").running() as service:
            outbound = allow(service.url)
            reply = await outbound.post(outbound.check(f"{service.url}/up?x=%2F"), {"TTL": "5"}, b"body")
            await outbound.close()
        assert (reply.status, reply.body, reply.retry_after) == (201, b"made", 7.0)
        got = await service.next()
        assert (got.method, got.path, got.body) == ("POST", "/up?x=%2F", b"body")
        assert got.headers["TTL"] == "5"
        assert got.headers["User-Agent"] == "blindrelay-notifier"
        assert got.headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Referer", "From", "X-Forwarded-For"} & set(got.headers)

    @run_async
    async def test_tls_is_verified(self, tmp_path: Path) -> None:
        files = make_certificate(tmp_path)
        import ssl

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(files.chain, files.key)
        async with PushService(tls).running() as service:
            trusted, wary = allow(service.url, tls=trusting(files)), allow(service.url)
            assert (await trusted.post(trusted.check(service.url), {}, b"")).status == 201
            with pytest.raises(Unreachable, match="the certificate is not valid"):
                await wary.post(wary.check(service.url), {}, b"")
            assert service.count == 1
            await trusted.close()
            await wary.close()

    @pytest.mark.parametrize(
        "addresses",
        [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["100.64.0.1"], ["::1"], ["fd00::1"], ["fe80::1%1"],
        ["0.1.2.3"],
         ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["64:ff9b:1::7f00:1"], ["2002:7f00:1::"], ["127.0.0.1", "::1",
         "10.1.1.1"]],
    )  # fmt: skip
    @run_async
    async def test_names_of_inner_addresses_are_not_connected_to(self, addresses: list[str]) -> None:
        outbound = Outbound(lookup=lookup(addresses), timeouts=PATIENT)
        with pytest.raises(Forbidden, match="no public address"):
            await outbound.post(outbound.check("https://rebind.example.org/"), {}, b"")
        await outbound.close()

    @run_async
    async def test_of_a_mixed_name_only_the_public_addresses_are_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []

        def refuse(address: tuple[int, int, int, str, tuple[str, int]], _: object) -> socket.socket:
            tried.append(address[4][0])
            raise ConnectionRefusedError

        monkeypatch.setattr(outbound_module, "_checked_socket", refuse)
        names = lookup(["127.0.0.1", "1.1.1.1", "::1", "2606:4700:4700::1111", "192.168.0.1"])
        outbound = Outbound(lookup=names, timeouts=PATIENT)
        with pytest.raises(Unreachable):
            await outbound.post(outbound.check("https://mixed.example.org/"), {}, b"")
        await outbound.close()
        assert set(tried) == {"1.1.1.1", "2606:4700:4700::1111"}

    @run_async
    async def test_behind_a_nat64_translated_addresses_are_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []
        make = outbound_module._checked_socket

        def note(address: tuple[int, int, int, str, tuple[str, int]], nat64: tuple[IPv6Network, ...]) -> socket.socket:
            make(address, nat64).close()
            tried.append(address[4][0])
            raise ConnectionRefusedError

        monkeypatch.setattr(outbound_module, "_checked_socket", note)
        names = lookup(["64:ff9b::101:101", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"])
        outbound = Outbound(lookup=names, timeouts=PATIENT, nat64=[parse_nat64("64:ff9b::/96")])
        with pytest.raises(Unreachable):
            await outbound.post(outbound.check("https://mixed.example.org/"), {}, b"")
        await outbound.close()
        assert tried == ["64:ff9b::101:101"]

    @run_async
    async def test_and_their_connections_are_let_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[object] = []

        async def send(_request: object, conn: object) -> object:
            sent.append(conn)
            return conn

        def connection(peer: str) -> SimpleNamespace:
            return SimpleNamespace(transport=SimpleNamespace(get_extra_info=lambda _: (peer, 443, 0, 0)))

        monkeypatch.setattr("aiohttp.ClientRequest.send", send)
        for nat64, passes in (([parse_nat64("64:ff9b::/96")], True), ([], False)):
            outbound = Outbound(nat64=nat64)
            kind = outbound._session(allowed=False, ours=False)._request_class
            request = kind.__new__(kind)
            for peer, public in (("64:ff9b::101:101", passes), ("64:ff9b::7f00:1", False)):
                if public:
                    await request.send(connection(peer))  # type: ignore[arg-type]
                else:
                    with pytest.raises(ForbiddenAddress):
                        await request.send(connection(peer))  # type: ignore[arg-type]
            await outbound.close()
        assert len(sent) == 1

    @run_async
    async def test_a_name_that_changes_its_mind_gains_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """DNS rebinding: public when it is asked first, ours when it is asked again."""
        monkeypatch.setattr(outbound_module, "_DNS_KEPT", 0)
        asked: list[str] = []
        names = lookup(["1.1.1.1"], ["127.0.0.1"])

        def ask(host: str, port: int) -> list[tuple[int, str]]:
            asked.append(host)
            return names(host, port)

        def refuse(*_: object) -> socket.socket:
            raise ConnectionRefusedError

        async with listening() as (port, seen):
            monkeypatch.setattr("peers.notifier.endpoints.PORTS", frozenset((port,)))
            outbound = Outbound(lookup=ask, timeouts=PATIENT)
            endpoint = outbound.check(f"https://rebind.example.org:{port}/")
            with monkeypatch.context() as first, pytest.raises(Unreachable):
                first.setattr(outbound_module, "_checked_socket", refuse)  # 1.1.1.1 is not ours to connect to
                await outbound.post(endpoint, {}, b"")
            await outbound.close()
            with pytest.raises(Forbidden):
                await outbound.post(endpoint, {}, b"")
            await outbound.close()
            assert len(asked) == 2
            assert not seen

    @run_async
    async def test_the_socket_is_the_second_lock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Were the resolver to let an address through, no packet would leave for it."""
        async with listening() as (port, seen):
            monkeypatch.setattr("peers.notifier.endpoints.PORTS", frozenset((port,)))
            monkeypatch.setattr("peers.notifier.resolving.is_public", lambda *_: True)
            outbound = Outbound(lookup=lookup(["127.0.0.1"]), timeouts=PATIENT)
            with pytest.raises(Forbidden):
                await outbound.post(outbound.check(f"https://rebind.example.org:{port}/"), {}, b"")
            await outbound.close()
            assert not seen

    @run_async
    async def test_the_peer_of_the_connection_is_the_third(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And were the socket to let it through, no request would be written."""
        import ssl

        files = make_certificate(tmp_path)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(files.chain, files.key)
        async with PushService(tls).running() as service:
            port = int(service.url.rpartition(":")[2])
            monkeypatch.setattr("peers.notifier.endpoints.PORTS", frozenset((port,)))
            monkeypatch.setattr("peers.notifier.endpoints._NEVER_PUBLIC", frozenset())
            monkeypatch.setattr("peers.notifier.resolving.is_public", lambda *_: True)
            monkeypatch.setattr(outbound_module, "_checked_socket", lambda address, _: socket.socket(*address[:3]))
            outbound = Outbound(lookup=lookup(["127.0.0.1"]), timeouts=PATIENT, tls=trusting(files))
            with pytest.raises(Forbidden, match="the connection leads to no public address"):
                await outbound.post(outbound.check(f"https://relay.example:{port}/"), {}, b"")
            await outbound.close()
            assert service.count == 0

    def test_sockets_are_made_for_public_addresses_alone(self) -> None:
        kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        with _checked_socket((socket.AF_INET, *kind, ("1.1.1.1", 443))) as made:
            assert made.family is socket.AF_INET
        with pytest.raises(ForbiddenAddress):
            _checked_socket((socket.AF_INET, *kind, ("127.0.0.1", 443)))
        with pytest.raises(ForbiddenAddress):
            _checked_socket((socket.AF_INET6, *kind, ("::1", 443, 0, 0)))

    @run_async
    async def test_what_one_host_is_allowed_another_is_not(self) -> None:
        """A name of a stranger's that resolves to an allowed host's address stays a stranger's."""
        async with listening() as (port, seen):
            outbound = Outbound([AllowedHost("127.0.0.1", port)], lookup=lookup(["127.0.0.1"]), timeouts=PATIENT)
            assert outbound.check(f"https://127.0.0.1:{port}/").allowed
            for url in (f"https://alias.example.org:{port}/", f"http://127.0.0.1:{port}/"):
                with pytest.raises(ValueError, match="endpoint"):
                    outbound.check(url)
            with pytest.raises(Forbidden):
                await outbound.post(outbound.check("https://alias.example.org/"), {}, b"")
            await outbound.close()
            assert not seen

    @run_async
    async def test_names_that_do_not_resolve(self) -> None:
        def fail(host: str, port: int) -> list[tuple[int, str]]:
            raise socket.gaierror(socket.EAI_NONAME, f"no {host}")

        for names in (fail, lookup([])):
            outbound = Outbound(lookup=names, timeouts=PATIENT)
            with pytest.raises(Unreachable, match="the host name does not resolve") as caught:
                await outbound.post(outbound.check("https://secret.example.org/"), {}, b"")
            assert "secret" not in str(caught.value)
            await outbound.close()

    @run_async
    async def test_a_name_server_that_is_slow_holds_nobody_but_its_own(self) -> None:
        """All threads of the loop itself stay free, and the request ends in time."""
        gate = threading.Event()
        asked = [0]

        def ask(host: str, port: int) -> list[tuple[int, str]]:
            asked[0] += 1
            gate.wait(WAIT)
            return []

        outbound = Outbound(lookup=ask, timeouts=Timeouts(total=0.2))
        pushes = [outbound.post(outbound.check(f"https://{n}.example.org/"), {}, b"") for n in range(80)]
        try:
            ends = await asyncio.wait_for(asyncio.gather(*pushes, return_exceptions=True), WAIT)
            assert {str(end) for end in ends} == {"no answer in time"}
            assert asked[0] == 64, "threads are bounded, also when nobody waits for them any more"
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 5), WAIT) == 5
        finally:
            gate.set()
            await outbound.close()

    @run_async
    async def test_names_that_hang_hold_up_none_of_the_operators_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """FCM and Google's token service, and hosts that were allowed, have slots and connections of their own."""
        gate = threading.Event()

        def ask(host: str, port: int) -> list[tuple[int, str]]:
            if host.endswith("stranger.example.org"):
                gate.wait(WAIT)
            return [(socket.AF_INET, "1.1.1.1" if "googleapis" in host else "127.0.0.1")]

        def refuse(*_: object) -> socket.socket:
            raise ConnectionRefusedError

        monkeypatch.setattr(outbound_module, "_checked_socket", refuse)
        async with PushService().running() as service:
            port = int(service.url.rpartition(":")[2])
            outbound = Outbound([AllowedHost("ntfy.lan", port, "http")], lookup=ask, timeouts=PATIENT)
            strangers = [
                asyncio.create_task(outbound.post(outbound.check(f"https://{n}.stranger.example.org/"), {}, b""))
                for n in range(300)
            ]
            try:
                await asyncio.sleep(0)
                fcm = Fcm(outbound, replace(Google().account(), token_uri="https://oauth2.googleapis.com/token"))
                async with asyncio.timeout(WAIT / 2):
                    outcome = await fcm.push(b"t" * 40, Push(PushType.CALL, 30))
                    assert outcome.detail == "token request: no connection", "asked for, and got as far as the socket"
                    endpoint = outbound.check("https://fcm.googleapis.com/v1", ours=True)
                    with pytest.raises(Unreachable, match="no connection"):
                        await outbound.post(endpoint, {}, b"")
                    assert (await outbound.post(outbound.check(f"http://ntfy.lan:{port}/x"), {}, b"")).status == 201
                assert not any(task.done() for task in strangers)
                await fcm.close()
            finally:
                gate.set()
                await asyncio.gather(*strangers, return_exceptions=True)
                await outbound.close()

    @run_async
    async def test_names_that_hang_do_not_hold_up_names_that_were_quick(self) -> None:
        gate = threading.Event()
        resolver = Resolver(
            lambda host, _: [] if host.startswith("hang") and gate.wait(WAIT) else [(socket.AF_INET, "1.1.1.1")],
            checked=True,
        )
        hosts = [f"good{n}.example.org" for n in range(10)]
        for host in hosts:
            await resolver.resolve(host, 443)
        hung = [asyncio.create_task(resolver.resolve(f"hang{n}.example.org", 443)) for n in range(200)]
        try:
            await asyncio.sleep(0)
            for _ in range(20):
                async with asyncio.timeout(WAIT / 2):
                    found = await asyncio.gather(*(resolver.resolve(host, 443) for host in hosts))
                assert {each[0]["host"] for each in found} == {"1.1.1.1"}
        finally:
            gate.set()
            await asyncio.gather(*hung, return_exceptions=True)

    def test_and_does_not_hold_up_the_end_of_the_process(self) -> None:
        program = """
import asyncio, threading
from peers.notifier.outbound import Outbound, Timeouts, Unreachable

async def main():
    outbound = Outbound(lookup=lambda *_: threading.Event().wait(), timeouts=Timeouts(total=0.1))
    try:
        await outbound.post(outbound.check("https://slow.example.org/"), {}, b"")
    except Unreachable as error:
        print(error)
    await outbound.close()

asyncio.run(main())
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "no answer in time\n", "")

    @run_async
    async def test_proxies_of_the_environment_are_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with PushService().running() as proxy, PushService().running() as service:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            outbound = allow(service.url)
            assert (await outbound.post(outbound.check(service.url), {}, b"")).status == 201
            await outbound.close()
            assert (proxy.count, service.count) == (0, 1)
