"""The errors of this floor.

KeysError
├── BadKey           a key that must not be used: wrong size, not canonical, low order, the zero id
├── OpenError        a packet or sealed file that does not open; says nothing about why
├── BadInvite        text that is no invite, relay card or mailbox card
├── DepositTooLarge  a packet that fits no deposit
└── KeyFileError     a key file or key setting that cannot be read or written; the text says what to do
"""


class KeysError(Exception):
    """Base of every error raised by :mod:`keys`."""


class BadKey(KeysError, ValueError):
    """A key that must not be used. The text never holds key bytes."""


class OpenError(KeysError):
    """A sealed thing did not open.

    One error without detail for every cause: whoever made the bytes must not learn which check they failed.
    """

    def __init__(self) -> None:
        super().__init__("does not open")

    def __reduce__(self) -> tuple[type["OpenError"], tuple[()]]:
        # The inherited one passes the text to __init__, so that the error would not survive a process pool.
        return OpenError, ()


class BadInvite(KeysError, ValueError):
    """A text that is no invite (``K0…``), relay card (``R0…``) or mailbox card (``M0…``)."""


class DepositTooLarge(KeysError, ValueError):
    """A packet that is too long for a mailbox: send it when its recipient is there, or send less."""


class KeyFileError(KeysError):
    """A key file or key setting that cannot be used. The text says what to do and never holds secrets."""
