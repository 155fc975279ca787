"""The seals between nodes, and the names that NATS sees. Pure.

NATS carries nothing in clear but who sends to which node and how much. All keys come from the cluster secret, so who
does not have it can neither read nor make a message. What it can do is repeat, withhold and reorder:

- A *call* (hello, announcement, question, answer) is sealed under one key for the whole cluster with a nonce drawn at
  random (24 bytes: collisions are out of reach) and bound to its kind, its source, its destination where it has one,
  and the subject that it came on. A repeated one changes nothing: a hello counts only if it names a nonce that we drew
  for the next link, an answer only if it is bound to the nonce of its question, and questions change nothing.
- *Data* between two nodes is sealed under a key of that link and direction, which both nodes' fresh nonces go into, so
  the sequence number can be the nonce: it never serves twice. Bound to it are source, destination, link and subject.

A node is named by its boot epoch: 8 random bytes, drawn when its process starts. A node that starts again is another.
"""

from base64 import b32encode
from typing import Final

from keys.errors import OpenError
from keys.primitives import NONCE_SIZE, AeadStream, Digest, aead_open, aead_seal, derive_key, keyed_digest
from wire.frames import Random

NUMBER_SIZE: Final = 8
"""Bytes of a node number."""
LINK_NONCE: Final = 16
"""Bytes that each side of a link draws for its keys."""
LINK_ID: Final = 8
_DIGEST: Final = 16
_NOBODY: Final = bytes(NUMBER_SIZE)

HELLO: Final = 1
DATA: Final = 2
ANNOUNCE: Final = 3
ASK: Final = 4
ANSWER: Final = 5

CALL_HEAD: Final = 1 + NUMBER_SIZE + NONCE_SIZE
"""Bytes before the ciphertext of a call: ``kind(1) source(8) nonce(24)``."""
DATA_HEAD: Final = 1 + NUMBER_SIZE + LINK_ID + 8
"""Bytes before the ciphertext of data: ``kind(1) source(8) link(8) sequence(8)``."""

_CALL: Final = "blindrelay 2026 cluster: calls between nodes"
_SUBJECT: Final = "blindrelay 2026 cluster: subjects of ids"
_LINK: Final = "blindrelay 2026 cluster: one direction of a link"
_SHARED: Final = "blindrelay 2026 cluster: digests in shared memories"


class LinkKeys:
    """The keys of one link, as one of its two nodes has them.

    Args:
        secret: the cluster secret.
        ours: our node number and our nonce for this link.
        theirs: those of the other node.
    """

    __slots__ = ("id", "mine", "opener", "sealer", "theirs")

    def __init__(self, secret: bytes, ours: tuple[bytes, bytes], theirs: tuple[bytes, bytes]) -> None:
        self.mine, self.theirs = ours[1], theirs[1]
        # All parts have fixed sizes, so their concatenation is unambiguous.
        seal_key = derive_key(_LINK, secret + ours[0] + theirs[0] + ours[1] + theirs[1])
        open_key = derive_key(_LINK, secret + theirs[0] + ours[0] + theirs[1] + ours[1])
        self.sealer, self.opener = AeadStream(seal_key), AeadStream(open_key)
        both = b"".join(sorted((keyed_digest(seal_key, b"id"), keyed_digest(open_key, b"id"))))
        digest = Digest()
        digest.update(both)
        self.id = digest.digest()[:LINK_ID]

    def __repr__(self) -> str:
        return "LinkKeys(…)"


class Seals:
    """What one node seals and opens.

    Args:
        secret: the cluster secret, 32 bytes.
        prefix: of all subjects.
        number: our node number.
        random: gives nonces.
    """

    def __init__(self, secret: bytes, prefix: str, number: bytes, random: Random) -> None:
        self._secret = secret
        self._prefix = prefix
        self._call_key = derive_key(_CALL, secret)
        self._subject_key = derive_key(_SUBJECT, secret)
        self._random = random
        self.number = number
        self.shared_key = derive_key(_SHARED, secret)
        """Under which all nodes keep addresses and nonces in memories that they share."""
        self.own_subject = self.node_subject(number)
        self.all_subject = f"{prefix}.nodes"
        self.answer_prefix = f"{prefix}.answer"

    def id_subject(self, client_id: bytes) -> str:
        """Return the subject of a client id: a keyed hash, so that NATS learns no id."""
        name = b32encode(keyed_digest(self._subject_key, client_id, _DIGEST)).rstrip(b"=").decode().lower()
        return f"{self._prefix}.id.{name}"

    def node_subject(self, number: bytes) -> str:
        """Return the subject of a node."""
        return f"{self._prefix}.node.{number.hex()}"

    def link(self, mine: bytes, peer: bytes, theirs: bytes) -> LinkKeys:
        """Return the keys of a link with a node, for which we drew the nonce `mine` and it drew `theirs`."""
        return LinkKeys(self._secret, (self.number, mine), (peer, theirs))

    def relay_digest(self, facts: bytes) -> bytes:
        """Return 16 bytes that are equal at nodes with the same facts, and tell nobody else what these are."""
        return keyed_digest(self._call_key, facts, _DIGEST)

    # --- Calls -------------------------------------------------------------------------------------------------------

    def seal_call(self, kind: int, body: bytes, subject: str, to: bytes = _NOBODY, context: bytes = b"") -> bytes:
        """Return a sealed call. `context` is bound to it too: for an answer, its question."""
        nonce = self._random(NONCE_SIZE)
        head = bytes((kind,)) + self.number
        return head + nonce + aead_seal(self._call_key, nonce, body, _bound(head, to, subject, context))

    def open_call(self, data: bytes, subject: str, to: bytes = _NOBODY, context: bytes = b"") -> tuple[bytes, bytes]:
        """Return the source and the body of a sealed call.

        Raises:
            OpenError: it is none, of nobody who has the secret, or meant for another place.
        """
        if len(data) < CALL_HEAD:
            raise OpenError
        head, nonce = data[: 1 + NUMBER_SIZE], data[1 + NUMBER_SIZE : CALL_HEAD]
        body = aead_open(self._call_key, nonce, data[CALL_HEAD:], _bound(head, to, subject, context))
        return head[1:], body

    # --- Data --------------------------------------------------------------------------------------------------------

    def seal_data(
        self, keys: LinkKeys, sequence: int, plaintext: bytes, to: bytes, subject: str
    ) -> tuple[bytes, bytes]:
        """Return sealed data in two parts, for it may be large; a sequence number never serves twice on one link."""
        head = bytes((DATA,)) + self.number + keys.id + sequence.to_bytes(8, "big")
        return head, keys.sealer.seal(sequence, plaintext, _bound(head, to, subject, b""))

    def open_data(self, keys: LinkKeys, data: bytes) -> bytes:
        """Return what :func:`seal_data` of the other node sealed for us.

        Raises:
            OpenError: for any reason.
        """
        head = data[:DATA_HEAD]
        sequence = int.from_bytes(head[-8:], "big")
        # A view: to cut it out would be to copy it.
        sealed = memoryview(data)[DATA_HEAD:]
        return keys.opener.open(sequence, sealed, _bound(head, self.number, self.own_subject, b""))


def _bound(head: bytes, to: bytes, subject: str, context: bytes) -> bytes:
    name = subject.encode()
    return head + to + len(name).to_bytes(2, "big") + name + context


def link_of(data: bytes) -> tuple[bytes, int]:
    """Return link and sequence number that data names."""
    start = 1 + NUMBER_SIZE
    return data[start : start + LINK_ID], int.from_bytes(data[start + LINK_ID : DATA_HEAD], "big")
