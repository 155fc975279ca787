"""Where bytes of others come into `wire`: the fuzz target itself, for any driver (atheris, hypothesis, by hand).

THE INVARIANT: ANY BYTES GIVE A VALUE OR A WireError.

Noise alone would never get past a signature, so some doors seal it first, as whoever holds the keys would: what is
fuzzed there is what stands behind the cryptography.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from keys.identity import SERVER_ID, Identity
from keys.packet import seal
from wire import commands, frames, inner, mask, peer_commands
from wire.errors import WireError
from wire.session import TRANSITIONS, ClientSession, Role, ServerSession, State

SERVER: Final = Identity(b"\x11" * 32, b"\x12" * 32)
CLIENT: Final = Identity(b"\x21" * 32, b"\x22" * 32)
SHARED: Final = CLIENT.shared_with(SERVER.public.x_pub)
TO_SERVER: Final = mask.client_to_server(SHARED)
TO_CLIENT: Final = mask.server_to_client(SHARED)
MAX_PAYLOAD: Final = 4200  # beyond the largest bounded body

_client_session: Final = ClientSession(CLIENT, SERVER.public)
_server_session: Final = ServerSession(SERVER)
_server_session.receive_hello(ClientSession(CLIENT, SERVER.public).hello())


def _client_in(choice: int) -> ClientSession:
    """The states are set by hand, so that one session serves all inputs."""
    states = list(TRANSITIONS[Role.CLIENT])
    _client_session.state = states[choice % len(states)]
    return _client_session


def _server_in(choice: int) -> ServerSession:
    states = list(TRANSITIONS[Role.SERVER])
    _server_session.state = states[choice % len(states)]
    return _server_session


def _new_server() -> ServerSession:
    _server_session.state = State.AWAITING
    return _server_session


def _sealed(plaintext: bytes, author: Identity) -> bytes:
    return seal(plaintext, author, SHARED, bytes)  # one nonce for all: an input must give the same bytes again


def _from_server(plaintext: bytes) -> bytes:
    return frames.build_frame(TO_CLIENT, SERVER_ID, _sealed(plaintext, SERVER))


Door = Callable[[int, bytes], object]
DOORS: Final[dict[str, Door]] = {
    "parse_inner": lambda _, data: inner.parse_inner(data),
    "parse_from_peer": lambda code, data: peer_commands.parse_from_peer(code, data),
    "parse_from_client": lambda code, data: commands.parse_from_client(code, data),
    "parse_from_server": lambda code, data: commands.parse_from_server(code, data),
    "parse_frame": lambda _, data: frames.parse_frame(TO_SERVER, data),
    "parse_handshake": lambda _, data: frames.parse_handshake(data, SERVER),
    "parse_handshake, after the key": lambda _, data: frames.parse_handshake(CLIENT.public.x_pub + data, SERVER),
    "receive_hello, sealed": lambda _, data: _new_server().receive_hello(CLIENT.public.x_pub + _sealed(data, CLIENT)),
    "open_command": lambda state, data: _server_in(state).open_command(data),
    "open_command, sealed": lambda state, data: _server_in(state).open_command(_sealed(data, CLIENT)),
    "receive": lambda state, data: _client_in(state).receive(data),
    "receive, sealed": lambda state, data: _client_in(state).receive(_from_server(data)),
}
"""Where bytes of others come in. The number is the code of a command, or chooses the state of a session."""


OPEN: Final = list(TRANSITIONS[Role.CLIENT]).index(State.OPEN)
PROVEN: Final = list(TRANSITIONS[Role.SERVER]).index(State.PROVEN)

_REQUEST: Final = b"\0\0\1" + CLIENT.public.ed_pub + b"\2"
_KEYS: Final = bytes(range(64))
_FROM_CLIENT: Final = {
    0x01: _REQUEST[3:],
    0x40: _KEYS,
    0x41: _KEYS[:32],
    0x46: _KEYS[:8] + "Алиса".encode(),
    0x48: _KEYS[:9],
    0x49: b"\2{}",
    0x4D: _KEYS[:32],
    0x7F: b"new",
}
_FROM_PEER: Final = {
    0x20: bytes(16) + b"text",
    0x24: b'{"id":"00000000-0000-0000-0000-000000000000","name":"a","mime":"b","size":3}',
    0x25: bytes(20) + b"data",
    0x26: bytes(32),
    0x27: bytes(16),
    0x30: b"",
    0x60: bytes(24),
    0x61: bytes(24),
    0x62: bytes(17),
}
_FROM_SERVER: Final = {
    0x02: b"\2",
    0x42: _KEYS,
    0x43: _KEYS[:32],
    0x47: _KEYS + "Алиса".encode(),
    0x48: _KEYS[:8],
    0x49: _KEYS[:8] + b"\2{}",
    0x4A: b"",
    0x4B: _KEYS[:4],
    0x4C: _KEYS[:32],
    0x7F: b"new",
    0x88: "до свидания".encode(),
    0xFF: b"\3" + _KEYS[:32],
}
SEEDS: Final[list[tuple[str, int, bytes]]] = [
    ("parse_inner", 0, b"\0\0\x4a"),
    *(("parse_from_peer", code, body) for code, body in _FROM_PEER.items()),
    *(("parse_from_client", code, body) for code, body in _FROM_CLIENT.items()),
    *(("parse_from_server", code, body) for code, body in _FROM_SERVER.items()),
    ("parse_frame", 0, bytes(112)),
    ("parse_handshake", 0, CLIENT.public.x_pub + _sealed(_REQUEST, CLIENT)),
    ("parse_handshake, after the key", 0, _sealed(_REQUEST, CLIENT)),
    ("receive_hello, sealed", 0, _REQUEST),
    ("open_command", PROVEN, _sealed(b"\0\0\x40", CLIENT)),
    *(("open_command, sealed", PROVEN, bytes((0, 0, code)) + body) for code, body in _FROM_CLIENT.items() if code != 1),
    ("receive", OPEN, _from_server(b"\0\0\x4a")),
    *(("receive, sealed", OPEN, bytes((0, 0, code)) + body) for code, body in _FROM_SERVER.items() if code != 2),
]
"""Inputs that give a value: where fuzzing starts, and proof that no door is shut for good."""


def one_input(door: str, number: int, payload: bytes) -> object:
    """Hold the invariant for one input; returns the value or None. Whatever is raised here is a finding."""
    with suppress(WireError):
        return DOORS[door](number, payload)
    return None
