"""The clients of a mailbox at its relay: whose keys are known, for nothing opens without them. Pure.

Everybody is a stranger: keys come by the relay's introductions and are kept in memory, those heard lately. The relay
could tell wrong ones. It gains little: a packet opens only under the X25519 key that sealed it, so that nobody picks up
what is not theirs; and with a wrong Ed25519 key nothing opens, which the relay could have by passing nothing on.

One thing has to be seen to. Both directions between two parties are sealed under one secret, and only signatures tell
them apart. A relay that introduces a client with an Ed25519 key of its own could sign the mailbox's own answer anew and
send it back as that client's request. No answer's code is that of a request, so it would be one that nobody knows.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from keys.contact import Contact
from keys.errors import BadKey
from keys.identity import Identity, PublicIdentity


@dataclass(slots=True, eq=False)
class Client:
    """One client, as long as it is remembered.

    Attributes:
        contact: its keys, and the secret that we share.
        under_way: how many of its requests are.
        message_id: of the last packet that we sent to it.
        speaks_ours: it has sent a request that only those make who have our card.
    """

    contact: Contact = field(repr=False)
    under_way: int = 0
    message_id: int = 0
    speaks_ours: bool = False

    @property
    def x_pub(self) -> bytes:
        return self.contact.public.x_pub

    def next_message_id(self) -> int:
        """Return the id for one more packet."""
        self.message_id = (self.message_id + 1) & 0xFFFF
        return self.message_id


class Strangers:
    """Clients by their ids.

    Args:
        ours: who we are.
        size: how many are kept; those not heard for longest go first.
    """

    def __init__(self, ours: Identity, size: int) -> None:
        self._ours = ours
        self._size = size
        self._clients: OrderedDict[bytes, Client] = OrderedDict()

    def introduced(self, public: PublicIdentity) -> Client | None:
        """Take an introduction; return the client, None for keys that must not be used."""
        known = self._clients.get(public.id)
        if known is not None and known.contact.public == public:
            self._clients.move_to_end(public.id)
            return known
        try:
            # The latest counts: it is of the session that has the id now.
            client = Client(Contact(self._ours, public))
        except BadKey:
            return None
        self._clients[public.id] = client
        self._clients.move_to_end(public.id)
        if len(self._clients) > self._size:
            self._clients.popitem(last=False)
        return client

    def heard(self, client_id: bytes) -> Client | None:
        """Return who has this id, for a packet came from them; None if they were not introduced."""
        client = self._clients.get(client_id)
        if client is not None:
            self._clients.move_to_end(client_id)
        return client

    def find(self, client_id: bytes) -> Client | None:
        """Return who has this id, without taking note of it."""
        return self._clients.get(client_id)

    def __len__(self) -> int:
        return len(self._clients)
