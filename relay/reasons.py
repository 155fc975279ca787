"""Why something was refused or ended: one enum, whose values are also what logs and metrics are labelled with."""

from enum import StrEnum
from typing import Final


class Refusal(StrEnum):
    """Why a frame that was read did not reach its recipient; whoever sent a peer frame is answered 0x03."""

    OFFLINE = "offline"  # no session has this id
    RECIPIENT_FULL = "recipient_full"  # the recipient's own bound is reached
    TOTAL_FULL = "total_full"  # the bound for all queues together is reached
    SHED = "shed"  # was queued, and gave way when the total was used up
    RECIPIENT_GONE = "recipient_gone"  # was queued when the recipient's session ended
    MALFORMED = "malformed"
    REPLAYED = "replayed"  # a frame for the server whose nonce was seen before
    UNKNOWN_COMMAND = "unknown_command"
    RATE = "rate"  # INTRODUCE, WAKE or PUSH_REGISTER beyond what one sender may
    TARGET_RATE = "target_rate"  # INTRODUCE or WAKE beyond what one target has to bear
    NO_NOTIFIER = "no_notifier"
    TARGET_AWAKE = "target_awake"  # a message WAKE for somebody who is online and active
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    SUBSCRIPTIONS_FULL = "subscriptions_full"  # too little is left of what all sessions may watch
    NODE_FULL = "node_full"  # too much waits already for another node of the cluster
    NODE_LOST = "node_lost"  # another node of the cluster cannot be reached, or went with what was on its way to it


class Ending(StrEnum):
    """Why a connection ended, as the relay sees it."""

    CLIENT = "client"  # the client closed, or its socket did
    NOT_WEBSOCKET = "not_websocket"  # answered as plain HTTP, or no HTTP at all
    BAD_REQUEST = "bad_request"  # an opening that is longer than any honest one
    BAD_PROXY = "bad_proxy"  # no PROXY header where one must be, or from somebody who may not send one
    BAD_TLS = "bad_tls"  # no TLS handshake, or a record that was changed
    SLOW_OPENING = "slow_opening"  # no handshake within the deadline
    FULL = "full"  # no room for more connections
    ADDRESS_FULL = "address_full"  # too many connections of one address
    TOKEN = "token"  # no admission token, or a wrong one  # noqa: S105
    TOKEN_RATE = "token_rate"  # too many wrong tokens from one address  # noqa: S105
    DENIED = "denied"  # named by the deny-file, or not named by the allow-file
    DECOMMISSIONED = "decommissioned"  # a key that is new to a relay which is being closed down
    CALLOUT_REFUSED = "callout_refused"  # the operator's admission service said no
    CALLOUT_FAILED = "callout_failed"  # that service gave no answer, or was asked too much
    HANDSHAKE_RATE = "handshake_rate"
    BAD_HANDSHAKE = "bad_handshake"
    BAD_VERSION = "bad_version"
    REPLAYED_HANDSHAKE = "replayed_handshake"
    ID_IN_USE = "id_in_use"
    REPLACED = "replaced"  # put out by a newer session of the same keys
    PROTOCOL_ERROR = "protocol_error"  # RFC 6455 violated
    MALFORMED = "malformed"  # too many frames that are none
    SILENT = "silent"
    STALLED = "stalled"  # did not take what was queued for it
    SLOW_FRAME = "slow_frame"  # a frame begun and not finished in time
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"


class Held(StrEnum):
    """What a session spent faster than it may, so that it was not read from for a while; nothing is lost by that."""

    FRAMES = "frames"
    BYTES = "bytes"
    COMMANDS = "commands"
    REFUSALS = "refusals"


HANDSHAKE_ENDINGS: Final = frozenset(
    {
        Ending.SLOW_OPENING,
        Ending.FULL,
        Ending.ADDRESS_FULL,
        Ending.TOKEN,
        Ending.TOKEN_RATE,
        Ending.DENIED,
        Ending.DECOMMISSIONED,
        Ending.CALLOUT_REFUSED,
        Ending.CALLOUT_FAILED,
        Ending.HANDSHAKE_RATE,
        Ending.BAD_HANDSHAKE,
        Ending.BAD_VERSION,
        Ending.REPLAYED_HANDSHAKE,
        Ending.ID_IN_USE,
    }
)
"""Endings that are outcomes of a handshake: the client asked to be let in, or should have, and was not."""
