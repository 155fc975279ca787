"""The errors of the client library. Their texts may be shown as they are: no keys, no ids, no control characters.

ClientError
├── BadOption           an option that cannot be used
├── NotConnected        there is no session now; nothing was queued
└── RelayRefused        the relay will not serve us, however often we ask
    ├── WrongRelayKeys      what answers does not have the keys of the relay card
    ├── NotAdmitted         this relay does not serve this client
    └── WrongVersion        the relay speaks another version of the protocol
"""

from wire.limits import PROTOCOL_VERSION


class ClientError(Exception):
    """Base of every error of a relay client."""


class BadOption(ClientError, ValueError):
    """An option of :class:`ClientOptions` that cannot be used; the text says which, and never repeats a token."""


class NotConnected(ClientError):
    """There is no session. What was being sent may not have reached the relay, and nothing is queued."""


class RelayRefused(ClientError):
    """The relay refused for good: the client stopped trying."""


class WrongRelayKeys(RelayRefused):
    """What answers at the address does not have the keys of the card."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return (
            f"the relay at {self.url} has other keys than its relay card says: compare the card with the one that "
            "its operator gives out now. Nothing was sent to it but our public keys"
        )


class NotAdmitted(RelayRefused):
    """This relay does not serve this client; :attr:`text` says why, in the words of the relay or ours."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"the relay does not let us in: {self.text or 'it does not say why; ask its operator'}"


class WrongVersion(RelayRefused):
    """The relay speaks another version of the protocol: :attr:`supported`."""

    def __init__(self, supported: int) -> None:
        super().__init__(supported)
        self.supported = supported

    def __str__(self) -> str:
        older = "the relay has to be updated" if self.supported < PROTOCOL_VERSION else "update this program"
        return f"the relay speaks version {self.supported} of the protocol and we speak {PROTOCOL_VERSION}: {older}"
