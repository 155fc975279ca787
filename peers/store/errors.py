"""The errors of a store. Their texts are for the user, and hold labels at most.

StoreError
├── NoSuchContact, Ambiguous    a name that means nobody, or several
├── Blocked                     somebody whom we blocked
├── BadLabel                    a label that cannot be given
├── KeysDiffer                  somebody else stands under that id or key
├── TooManyStrangers            introductions that nobody answered
├── NoSuchMessage               a number that means no message, or one that does not allow what is asked
├── BadText                     a text that cannot be sent
├── BadFile                     a file that cannot be sent or saved, or a step that it does not allow
├── NoSuchMailbox               a name or number that means no mailbox
├── TooManyMailboxes            more of ours than contacts can be told
└── NotAStore                   a file in a backup that is no store of ours
"""


class StoreError(Exception):
    """Base of what the functions of :mod:`peers.store` raise."""


class NoSuchContact(StoreError):
    """There is no such contact."""


class Ambiguous(StoreError):
    """Several contacts are meant."""


class Blocked(StoreError):
    """A contact from whom nothing is taken, not even an acknowledgement."""


class BadLabel(StoreError):
    """A label that cannot be given."""


class KeysDiffer(StoreError):
    """The keys are not those that we know.

    Either two people have keys whose first 8 bytes agree, which does not happen by chance, or somebody poses as a
    contact. What is known stays.
    """

    def __init__(self, label: str) -> None:
        super().__init__(
            f"the contact {label} has the same id with other keys. Compare safety numbers by a way that you trust;"
            " only if they really have new keys, remove the old contact and add the new invite"
        )
        self.label = label


class TooManyStrangers(StoreError):
    """No room for another stranger."""


class NoSuchMessage(StoreError):
    """There is no such message, or it does not allow what is asked."""


class BadText(StoreError):
    """A text that cannot be sent."""


class BadFile(StoreError):
    """A file that cannot be sent or saved, or that does not allow what is asked."""


class NoSuchMailbox(StoreError):
    """There is no such mailbox."""


class TooManyMailboxes(StoreError):
    """No room for another mailbox of ours."""


class NotAStore(StoreError):
    """What came in a backup is not a store that we can use."""
