"""Who may use this relay (PROTOCOL.md §8.8): tokens, lists of clients and addresses, a relay that is being closed down.

Pure: no I/O but for the reading of files in :meth:`Admission.reload`, no clock. The operator's own service that can be
asked besides is `relay.callout`.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

from keys.primitives import random_bytes
from relay.access import AccessError, read_list
from relay.tokens import Tokens, TokenSource
from wire.limits import MAX_INFO

T = TypeVar("T")


class Verdict(Enum):
    """What is to be done with a client."""

    WELCOME = "welcome"
    DENIED = "denied"
    DECOMMISSIONED = "decommissioned"


class Admission:
    """The rules in force. Without arguments everybody is let in.

    Args:
        tokens: where the valid tokens are read from; None asks for none.
        allow_file: who may connect, and nobody else; None lets everybody.
        deny_file: who may not, whatever else says so.
        random: makes the key under which tokens are compared.

    Raises:
        AccessError: a file cannot be used.
    """

    def __init__(
        self,
        tokens: TokenSource | None = None,
        allow_file: Path | None = None,
        deny_file: Path | None = None,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self.source = tokens
        """Where tokens are read from at the next reload; None asks for none."""
        self._allow_file = allow_file
        self._deny_file = deny_file
        self._random = random
        self.notice = ""
        """What clients are told while the relay is being closed down; empty while it is not."""
        self._known: Callable[[bytes], bool] | None = None
        self.reload()

    @property
    def lists_addresses(self) -> bool:
        """Whether lists are in use, so that the addresses of open connections may have to be looked at again."""
        return self._allow_file is not None or self._deny_file is not None

    @property
    def asks_tokens(self) -> bool:
        """Whether clients have to show a token."""
        return self._tokens is not None

    @property
    def summary(self) -> str:
        """How many of each are in force, for the log; `open` where there are no rules."""
        counts = (("tokens", self._tokens), ("allow", self._allow), ("deny", self._deny))
        return ", ".join(f"{name}: {len(each)}" for name, each in counts if each is not None) or "open"

    def reload(self) -> None:
        """Read tokens and lists anew: all of them, or none if one cannot be used.

        Raises:
            AccessError: a file cannot be used; what was in force stays in force.
        """
        problems: list[str] = []
        tokens = _read(None if self.source is None else self.source.read, problems)
        allow = _read(None if self._allow_file is None else partial(read_list, self._allow_file), problems)
        deny = _read(None if self._deny_file is None else partial(read_list, self._deny_file), problems)
        if problems:
            raise AccessError("\n".join(problems))
        self._tokens = None if tokens is None else Tokens(tokens, self._random)
        self._allow = allow
        self._deny = deny

    # --- Before anybody is known -------------------------------------------------------------------------------------

    def refuses_address(self, address: bytes) -> bool:
        """Tell whether nobody may come from an address (as `Session.address` has it), whoever they are."""
        if self._deny is not None and self._deny.has_address(address):
            return True
        allow = self._allow
        # With clients in the list it takes the handshake to know whether this is one of them.
        return allow is not None and not allow.names_clients and not allow.has_address(address)

    def valid(self, token: str) -> bool:
        """Tell whether a token is valid; any is where none is asked for."""
        return self._tokens is None or self._tokens.valid(token)

    # --- Once the handshake proved the keys --------------------------------------------------------------------------

    def judge(self, address: bytes, x_pub: bytes) -> Verdict:
        """Judge the owner of `x_pub`, who proved to be it, at an address; b"" is an address that is not known."""
        deny, allow = self._deny, self._allow
        if deny is not None and (deny.has_client(x_pub) or deny.has_address(address)):
            return Verdict.DENIED
        if allow is not None:
            if allow.has_client(x_pub) or allow.has_address(address):
                return Verdict.WELCOME
            return Verdict.DECOMMISSIONED if self.notice else Verdict.DENIED
        if self._known is not None and not self._known(x_pub):
            return Verdict.DECOMMISSIONED
        return Verdict.WELCOME

    # --- Closing down ------------------------------------------------------------------------------------------------

    def decommission(self, notice: str, who_is_known: Callable[[], Callable[[bytes], bool]]) -> None:
        """Take no new clients from now on, or again if `notice` is empty.

        With an allow-file those whom it names stay welcome, as before; without one, those whom this process knows.
        Another notice for a relay that is being closed down already changes nothing but the notice.

        Args:
            notice: what is told to whoever is refused, and to those who stay.
            who_is_known: called when this begins, gives a test for X25519 keys that were seen before this moment.

        Raises:
            ValueError: the notice is too long.
        """
        if len(notice) > MAX_INFO:
            raise ValueError(f"the notice has {len(notice)} characters: {MAX_INFO} is the most that clients take")
        if not notice:
            self._known = None
        elif self._known is None:
            self._known = who_is_known()
        self.notice = notice


def short_reason(text: str) -> str:
    """Return a text as the reason of a Close frame: 123 bytes of UTF-8 at most (RFC 6455 §5.5)."""
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")


def _read(read: Callable[[], T] | None, problems: list[str]) -> T | None:
    if read is not None:
        try:
            return read()
        except AccessError as error:
            problems.append(str(error))
    return None
