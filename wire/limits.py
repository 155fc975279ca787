"""The sizes of the protocol, in bytes (PROTOCOL.md §9). What a relay adds of its own stands in `relay.limits`."""

from typing import Final

from keys.identity import ID_SIZE
from keys.invite import NICKNAME_MAX
from keys.packet import OVERHEAD
from keys.primitives import KEY_SIZE

PROTOCOL_VERSION: Final = 2

MAX_FRAME: Final = 1024 * 1024
"""The largest frame, in either direction."""
MIN_FRAME: Final = ID_SIZE + OVERHEAD
"""The shortest frame that can be routed: a header and a packet with nothing in it (112)."""
MIN_HANDSHAKE: Final = KEY_SIZE + OVERHEAD
"""The shortest handshake request that can be taken apart (136)."""
INNER_HEAD: Final = 3
"""``message_id(u16 LE) command(u8)``."""
MIN_VALID_HANDSHAKE: Final = MIN_HANDSHAKE + INNER_HEAD + KEY_SIZE + 1
"""The shortest handshake request that can be valid (172)."""
MAX_HANDSHAKE: Final = 4096
"""The largest first frame: room for whatever a later version appends, and no more than a stranger should cost."""

MAX_NICKNAME: Final = NICKNAME_MAX
"""UTF-8 bytes of a nickname in an introduction (256), as in an invite."""
MAX_PUSH_TOKEN: Final = 4096
"""Bytes of a push token: FCM's have about 200, a Web Push subscription about 500."""
MAX_INFO: Final = 2000
"""Characters of an INFO notice."""
MAX_KEYS_PER_FRAME: Final = (MAX_FRAME - MIN_FRAME - INNER_HEAD) // KEY_SIZE
"""Keys that one SUBSCRIBE, UNSUBSCRIBE, PEER_ONLINE or PEER_OFFLINE can hold."""
