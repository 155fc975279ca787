"""What may be said and what may be sent, drawn at random."""

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from keys.identity import SERVER_ID
from wire import commands as c
from wire.inner import Inner
from wire.limits import MAX_INFO, MAX_NICKNAME, MAX_PUSH_TOKEN, PROTOCOL_VERSION

PATIENT: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No judgement by the clock: a loaded machine never makes a test fail."""

FROM_CLIENT: Final = frozenset({0x01, 0x40, 0x41, 0x46, 0x48, 0x49, 0x4D})
FROM_SERVER: Final = frozenset({0x02, 0x42, 0x43, 0x47, 0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x88, 0xFF})
"""The codes that are known, by who sends them."""

u8: Final = st.integers(0, 0xFF)
keys: Final = st.binary(min_size=32, max_size=32)
ids: Final = st.binary(min_size=8, max_size=8)
peer_ids: Final = ids.map(lambda party_id: bytes(7) + b"\x01" if party_id == SERVER_ID else party_id)
key_lists: Final = st.lists(keys, max_size=4).map(tuple)
nicknames: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_NICKNAME // 4)
tokens: Final = st.binary(max_size=64) | st.just(MAX_PUSH_TOKEN).map(bytes)
notices: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=64) | st.just(MAX_INFO).map("𝄞".__mul__)
packets: Final = st.binary(min_size=104, max_size=160)

errors: Final[st.SearchStrategy[c.ErrorBody]] = st.one_of(
    st.just(c.IdInUse()),
    st.builds(c.BadVersion, u8),
    st.builds(c.RecipientOffline, ids, st.binary(min_size=24, max_size=24)),
    st.builds(c.NotAdmitted, notices),
    st.builds(c.UnknownError, u8.filter(lambda code: code not in (1, 2, 3, 4)), st.binary(max_size=40)),
)
"""Every body of an ERROR."""

client_commands: Final[st.SearchStrategy[c.ClientBody]] = st.one_of(
    st.builds(c.Subscribe, key_lists),
    st.builds(c.Unsubscribe, key_lists),
    st.builds(c.Introduce, ids, nicknames),
    st.builds(c.Wake, ids, st.none() | u8),
    st.builds(c.PushRegister, u8, tokens),
    st.builds(c.Proof, keys),
    st.builds(c.Unknown, st.sampled_from(sorted(set(range(256)) - FROM_CLIENT)), st.binary(max_size=80)),
)
"""Every command of an open session, from the client."""

handshake_requests: Final = st.builds(c.HandshakeRequest, keys, u8)

server_commands: Final[st.SearchStrategy[c.ServerBody]] = st.one_of(
    st.builds(c.PeerOnline, key_lists),
    st.builds(c.PeerOffline, key_lists),
    st.builds(c.IntroFrom, keys, keys, nicknames),
    st.builds(c.Wake, ids, st.none() | u8),
    st.builds(c.PushForward, ids, u8, tokens),
    st.just(c.ServerPing()),
    st.builds(c.Restarting, st.integers(0, 0xFFFF_FFFF)),
    st.builds(c.Challenge, keys),
    st.builds(c.Info, notices),
    errors,
    st.builds(c.Unknown, st.sampled_from(sorted(set(range(256)) - FROM_SERVER)), st.binary(max_size=80)),
)
"""Every command of an open session, from the relay."""

handshake_oks: Final = st.builds(c.HandshakeOk, st.just(PROTOCOL_VERSION) | u8)

body_bytes: Final = st.one_of(
    st.binary(max_size=80),
    st.lists(keys, max_size=4).map(b"".join),
    (client_commands | handshake_requests | server_commands | handshake_oks).map(lambda body: body.encode()),
    st.builds(
        lambda body, more: body.encode() + more,
        client_commands | handshake_requests | server_commands,
        st.binary(min_size=1, max_size=8),
    ),
    st.sampled_from([257, 4097, 4098, 8001]).map(bytes),
)
"""Bytes that may or may not be a body: noise, right ones of any command, right ones with something appended."""

codes: Final = st.sampled_from(sorted(FROM_CLIENT | FROM_SERVER)) | u8

right: Final[st.SearchStrategy[tuple[int, bytes]]] = (
    client_commands | server_commands | handshake_requests | handshake_oks | errors
).map(lambda body: (body.command, body.encode()))
coded_bodies: Final[st.SearchStrategy[tuple[int, bytes]]] = st.one_of(
    right,
    st.tuples(codes, body_bytes),
    st.builds(lambda code_body, more: (code_body[0], code_body[1] + more), right, st.binary(min_size=1, max_size=8)),
    st.builds(lambda code_body, at: (code_body[0], code_body[1][:-at]), right, st.integers(1, 8)),
)
"""A code and bytes that are its body, or nearly so, or not at all."""

plaintexts: Final = st.one_of(
    st.binary(max_size=4),
    st.builds(
        lambda message_id, code_body: Inner(message_id, *code_body).encode(), st.integers(0, 0xFFFF), coded_bodies
    ),
)
"""Bytes that may or may not be an inner, and may or may not hold a command."""

some_bytes: Final = st.binary(max_size=300) | st.binary(min_size=108, max_size=300)
"""Noise, often long enough for a frame."""
