"""Who we are to Web Push services: a key of ours, and the tokens signed by it (VAPID, RFC 8292).

A subscription is made for one key and takes pushes of its owner alone. So the key stays: with another one, every
subscription has to be made anew.
"""

import base64
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from py_vapid import Vapid02, VapidException

SECRET_SIZE: Final = 32
_LIFE: Final = 12 * 3600
"""Seconds for which a token is valid. RFC 8292 §2 allows 24 hours; clocks differ."""
_RENEW: Final = _LIFE // 2
_CONTACT: Final = re.compile(r"mailto:[!-?A-~]+@[!-;=?A-~]+\.[!-;=?A-~]+|https://[!-.0-;=?A-~]+\.[!-;=?A-~]+")
_CONTACT_MAX: Final = 200
_CACHED_MAX: Final = 500
"""Tokens that are kept. Strangers choose the origins; each costs a signature once."""


@dataclass(frozen=True, slots=True)
class VapidKey:
    """A P-256 key. Its secret (`SECRET_SIZE` bytes) belongs into the key file.

    Raises:
        ValueError: that is no secret of P-256.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_SIZE:
            raise ValueError(f"a VAPID secret has {SECRET_SIZE} bytes")
        try:
            self.signer()
        except ValueError:
            raise ValueError("this is no VAPID secret: it is 0, or not below the order of P-256") from None

    @classmethod
    def generate(cls) -> Self:
        """Mint one."""
        signer = Vapid02()
        signer.generate_keys()
        return cls(signer.private_key.private_numbers().private_value.to_bytes(SECRET_SIZE, "big"))

    @property
    def application_server_key(self) -> str:
        """The public key as browsers take it: its uncompressed point (65 bytes) in unpadded base64url."""
        numbers = self.signer().public_key.public_numbers()
        return encode64(b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))

    def signer(self) -> Vapid02:
        """Return what signs by this key."""
        return Vapid02.from_raw(encode64(self.secret).encode())


class VapidTokens:
    """Signs tokens, and keeps each for half of its life.

    Args:
        key: ours.
        contact: where the operator can be reached by the operators of push services, ``mailto:…`` or ``https://…``.
        clock: seconds since 1970.

    Raises:
        ValueError: a contact that push services would refuse.
    """

    def __init__(self, key: VapidKey, contact: str, clock: Callable[[], float] = time.time) -> None:
        if len(contact) > _CONTACT_MAX or not _CONTACT.fullmatch(contact):
            raise ValueError("the contact is mailto:ADDRESS or an https:// URL, as in mailto:admin@example.org")
        self._signer = key.signer()
        self._signer.conf = {"no-strict": True}  # py-vapid's own check takes no https URL with a path
        self._contact = contact
        self._clock = clock
        self._cached: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def authorization(self, origin: str) -> str:
        """Return the Authorization header for a push service: ``vapid t=TOKEN,k=PUBLIC KEY`` (RFC 8292 §3).

        Raises:
            ValueError: an origin that no token can be made for.
        """
        now = self._clock()
        cached = self._cached.get(origin)
        # A clock that was set back must not leave us with a token from the future.
        if cached is not None and 0 <= now - cached[0] < _RENEW:
            self._cached.move_to_end(origin)
            return cached[1]
        try:
            header = self._sign(origin)
        except VapidException:
            raise ValueError("no VAPID token can be made for this origin") from None
        self._cached[origin] = (now, header)
        self._cached.move_to_end(origin)
        if len(self._cached) > _CACHED_MAX:
            self._cached.popitem(last=False)
        return header

    def _sign(self, origin: str) -> str:
        claims = {"aud": origin, "exp": int(self._clock()) + _LIFE, "sub": self._contact}
        return str(self._signer.sign(claims)["Authorization"])


def encode64(data: bytes) -> str:
    """Encode as unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
