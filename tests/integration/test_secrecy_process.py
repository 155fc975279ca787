"""The relay's output names nobody and repeats nothing, and nothing in relay/ could open a packet between peers."""

from __future__ import annotations

import ast
import asyncio
import base64
import os
import signal
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.clients import TEXT, Clients, tcp_connect
from tests.support.relay_process import ROOT
from wire import commands as c
from wire import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.relay_process import RelayProcess

PLAINTEXT = b"Meet me at the old lighthouse at noon."
NICKNAME = "Wilhelmina von Haller"
TOKEN = b'{"endpoint":"https://push.example/wilhelmina-device"}'
ADDRESSES = ("203.0.113.77", "2001:db8:77:88::99")


def spellings(secret: bytes) -> Iterator[bytes]:
    """Yield what these bytes look like in a text, whole, wherever in a longer run of bytes they stand."""
    yield secret
    yield repr(secret)[2:-1].encode()
    yield secret.hex().encode()
    yield secret.hex(" ").encode()
    yield secret.hex(":").encode()
    yield str(list(secret))[1:-1].encode()
    yield str(int.from_bytes(secret, "big")).encode()
    yield str(int.from_bytes(secret, "little")).encode()
    for lead in range(3):
        # In base64 every third byte begins anew; characters that depend on the neighbours are cut.
        text = base64.b64encode(bytes(lead) + secret)
        text = text[(lead * 8 + 5) // 6 : (lead + len(secret)) * 8 // 6]
        yield text
        yield text.replace(b"+", b"-").replace(b"/", b"_")


def find_spelling(secret: bytes, output: bytes) -> bytes | None:
    lower = output.lower()
    for text in spellings(secret):
        # Case folded but for base64: a hit there that is none would take four equal characters in a row of eleven.
        if text in output or (len(text) >= 16 and text.lower() in lower):
            return text
    return None


@pytest.mark.parametrize(
    "wrap", [bytes.hex, repr, lambda b: base64.b64encode(b"x" + b).decode(), lambda b: b.hex().upper()]
)
def test_the_search_finds_what_it_is_to_find(wrap: Callable[[bytes], str]) -> None:
    secret = os.urandom(8)
    assert find_spelling(secret, f"client {wrap(b'before' + secret + b'behind')} said".encode())
    assert find_spelling(os.urandom(8), wrap(b"before" + secret + b"behind").encode()) is None


async def converse(alice: Client, bob: Client, absent: Identity, wakes: Client) -> None:
    """Do all that clients do."""
    for one, other in ((alice, bob), (bob, alice)):
        await one.subscribe(other.public, absent.public)
        await one.expect(c.PeerOnline)
        await one.command(c.Introduce(other.id, NICKNAME))
        await other.expect(c.IntroFrom)
        await one.send(other.public, PLAINTEXT)
        assert await other.text_from(one.public) == PLAINTEXT
        await one.send(absent, PLAINTEXT)
        await one.expect(c.RecipientOffline)
    await alice.command(c.PushRegister(c.PushKind.WEB_PUSH, TOKEN))
    await wakes.expect(c.PushForward)
    await alice.command(c.Wake(absent.id, c.WakeType.CALL))
    await wakes.expect(c.Wake)


async def strangers(clients: Clients, alice: Identity, somebody: Identity) -> None:
    """Come to the relay with all that it refuses."""
    relay = clients.relay
    shared = somebody.shared_with(relay.public.x_pub)
    hello = frames.build_handshake(somebody, shared)
    path = f"/ws?id={somebody.id.hex()}&x={somebody.public.x_pub.hex()}"
    for first in (hello[:-1], frames.build_handshake(somebody, shared, version=9), PLAINTEXT):
        raw = await clients.socket(path)
        await raw.send(first)
        assert (await raw.receive_close()).code == 1008
    accepted, replay, violation = [await clients.socket(path) for _ in range(3)]
    await accepted.send(hello)
    await accepted.receive()
    await replay.send(hello)
    assert (await replay.receive_close()).reason == "a handshake is accepted once"
    accepted.abort()
    await violation.send(PLAINTEXT, 0x3)
    assert (await violation.receive_close()).code == 1002
    for identity in (Identity(alice.seeds[0], os.urandom(32)), alice):
        newcomer = await clients.connect(identity)
        await newcomer.greet()
        await newcomer.expect(c.IdInUse)
    reader, writer = await tcp_connect(relay.port)
    writer.write(f"GET /{alice.id.hex()} HTTP/1.1\r\nX-Name: {NICKNAME} {PLAINTEXT!r}\r\n\r\n".encode())
    await reader.read()
    writer.close()


async def end_badly(alice: Client, bob: Client) -> None:
    """Break the rules within a session."""
    await alice.raw.send(NICKNAME.encode(), TEXT)
    await alice.command(c.Unknown(0x7F, PLAINTEXT))
    for _ in range(16):
        await bob.raw.send(PLAINTEXT)
    assert (await bob.closed_at_last()).code == 1008
    await alice.raw.send(PLAINTEXT, 0x3)
    assert (await alice.closed_at_last()).code == 1002


async def get(port: int, path: str) -> bytes:
    """Return a whole answer, which must be a page."""
    reader, writer = await tcp_connect(port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return answer


async def traffic(relay: RelayProcess, people: list[Identity], notifier: Identity, seen: list[bytes]) -> set[bytes]:
    """Have people talk, and look at all pages meanwhile; returns how their own ports would be spelt."""
    async with Clients(relay) as clients:
        wakes, alice, bob = [
            await clients.open(identity, headers={"X-Forwarded-For": address})
            for identity, address in zip((notifier, *people), ("192.0.2.1", *ADDRESSES), strict=False)
        ]
        ports = [each.raw.writer.get_extra_info("sockname")[1] for each in (wakes, alice, bob)]
        await converse(alice, bob, people[2], wakes)
        await strangers(clients, people[0], people[2])
        seen += [await get(relay.port, path) for path in ("/", "/info", "/status", "/healthz", "/readyz")]
        seen += [await get(relay.admin_port, path) for path in ("/metrics", "/sessions")]
        await end_badly(alice, bob)
    return {text.format(port).encode() for port in ports for text in ("127.0.0.1:{}", "'127.0.0.1', {}", '1", {}')}


@pytest.mark.parametrize(
    ("number", "more"), [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGTERM, ["--log-pseudonyms"])]
)
def test_output_and_pages_name_nobody(
    start_relay: Callable[..., RelayProcess], tmp_path: Path, number: signal.Signals, more: list[str]
) -> None:
    people, notifier = [Identity.generate() for _ in range(3)], Identity.generate()
    relay = start_relay(arguments=["--log-level", "debug", *more], notifier_id=notifier.id, admin="127.0.0.1:0")
    seen: list[bytes] = []
    ports = asyncio.run(traffic(relay, people, notifier, seen))
    relay.signal(number)
    assert relay.wait() == 0
    output = relay.output.encode() + b"".join(seen)
    assert relay.stopped["frames"] > 20, "there was something to tell"
    assert (b"session_started" in output) is bool(more)
    secrets = {
        "plaintext": PLAINTEXT,
        "nickname": NICKNAME.encode(),
        "token": TOKEN,
        **{f"address {address}": address.encode() for address in ADDRESSES},
    }
    for who, identity in zip(("alice", "bob", "carol", "notifier"), (*people, notifier), strict=True):
        # The first bytes will do: whatever holds the whole holds these, and an id is the beginning of its key.
        secrets[f"the id of {who}"] = identity.id
        secrets[f"the signing key of {who}"] = identity.public.ed_pub[:8]
        for kind, seed in zip(("X25519", "Ed25519"), identity.seeds, strict=True):
            secrets[f"the {kind} seed of {who}"] = seed[:8]
        secrets[f"what {who} shares with the relay"] = identity.shared_with(relay.public.x_pub)[:8]
        secrets[f"what {who} shares with alice"] = identity.shared_with(people[identity is people[0]].public.x_pub)[:8]
    for what, secret in secrets.items():
        assert find_spelling(secret, output) is None, what
    for port in ports:
        assert port not in output
    # Nor is anything written beside it.
    assert {path.name for path in tmp_path.iterdir()} == {"relay.keys", "stdout-0", "stderr-0"}


# --- The code --------------------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"keys.packet", "keys.contact", "keys.passphrase"}
FORBIDDEN_NAMES = {"open_packet", "open_introducing", "Contact", "aead_open", "PeerFrame", "ClientSession"}
SEALS = ROOT / "relay" / "backplane" / "seals.py"
SOURCES = sorted((ROOT / "relay").rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield ``(module, name)`` of all that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_relay_has_nothing_that_opens_a_packet(path: Path) -> None:
    tree = ast.parse(path.read_text())
    # The nodes of a cluster open what they sealed for each other, under keys that no client has a part in.
    forbidden = FORBIDDEN_NAMES - ({"aead_open"} if path == SEALS else set())
    for module, name in imports(tree):
        assert module not in FORBIDDEN_MODULES
        assert f"{module}.{name}" not in FORBIDDEN_MODULES
        assert name not in forbidden
        assert module not in ("importlib", "pickle", "marshal")
    # aiohttp's ClientSession is an HTTP client and only has the name of ours.
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "aiohttp.ClientSession"
    }
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not used & forbidden


def test_one_place_opens_frames_for_the_server() -> None:
    calls = [
        (path.name, node.func.attr)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("open_command", "receive_hello", "shared_with")
    ]
    assert sorted(calls) == [("control.py", "open_command"), ("entry.py", "receive_hello")]
