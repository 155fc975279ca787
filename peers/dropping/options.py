"""How a mailbox's client behaves."""

from dataclasses import dataclass
from ssl import SSLContext
from typing import Final

from keys.stamp import BITS_MAX

STAMP_BITS: Final = 20
"""Most bits of a stamp that are minted unless its user says otherwise: some seconds of one core."""


@dataclass(frozen=True, slots=True)
class DroppingOptions:
    """Times in seconds.

    Attributes:
        timeout: for one request, the connection included.
        stamp_bits: most bits of a stamp that are minted; 0 to 30, each doubles the work.
        ssl: for https:// and wss:// in place of the system's trust.
        far: somebody else has chosen the address: a name that leads to this machine or its link is not followed.

    Raises:
        ValueError: `stamp_bits` is out of bounds.
    """

    timeout: float = 20.0
    stamp_bits: int = STAMP_BITS
    ssl: SSLContext | None = None
    far: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.stamp_bits <= BITS_MAX:
            raise ValueError(f"stamp_bits is between 0 and {BITS_MAX}")
