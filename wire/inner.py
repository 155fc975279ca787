"""The plaintext of a packet: ``message_id(u16 LE) command(u8) body`` (PROTOCOL.md §4)."""

from typing import NamedTuple

from wire.errors import BadFrame, LocalError
from wire.limits import INNER_HEAD


class Inner(NamedTuple):
    """A plaintext taken apart.

    The message id is the sender's own count, modulo 2¹⁶; the relay sends 0 and looks at nobody's.
    """

    message_id: int
    command: int
    body: bytes

    def encode(self) -> bytes:
        """Return the plaintext.

        Raises:
            LocalError: a message id or command out of range.
        """
        if not (0 <= self.message_id <= 0xFFFF and 0 <= self.command <= 0xFF):
            raise LocalError("the message id is a u16 and the command a u8")
        return self.message_id.to_bytes(2, "little") + bytes((self.command,)) + self.body

    def __repr__(self) -> str:
        return f"Inner(message_id={self.message_id}, command={self.command})"


def parse_inner(plaintext: bytes) -> Inner:
    """Take a plaintext apart.

    Raises:
        BadFrame: shorter than 3 bytes.
    """
    if len(plaintext) < INNER_HEAD:
        raise BadFrame("a plaintext has 3 bytes or more")
    return Inner(int.from_bytes(plaintext[:2], "little"), plaintext[2], plaintext[INNER_HEAD:])
