"""The errors of profiles.

ProfileError                    the text says what is wrong and what to do; it never holds secrets
├── NoSuchProfile               there is none of that name
├── ProfileBusy                 another program of the same person is connected
└── WrongProfilePassphrase      the keys do not open
"""


class ProfileError(Exception):
    """A profile, or a secret asked from the person, that cannot be used."""


class NoSuchProfile(ProfileError):
    """There is no profile of that name."""


class ProfileBusy(ProfileError):
    """Another program holds the lock of the profile."""


class WrongProfilePassphrase(ProfileError):
    """The passphrase is wrong, or the sealed keys were changed: the two cannot be told apart."""
