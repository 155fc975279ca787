"""Profiles: where a person's keys, settings, messages and files lie, and who of their programs may connect.

BLINDRELAY_HOME (or the user's data directory) /profiles/NAME/
    identity.keys    keys.files.write_identity; a profile without it does not count as one
    profile.toml     peers.profile.settings
    store.db         contacts and history
    files/           received files
    lock             peers.profile.lock
"""

from peers.profile.errors import NoSuchProfile, ProfileBusy, ProfileError, WrongProfilePassphrase
from peers.profile.lock import ProfileLock
from peers.profile.passphrase import ask_passphrase
from peers.profile.place import DEFAULT_NAME, Profile, data_home, list_profiles
from peers.profile.settings import ProfileSettings

__all__ = [
    "DEFAULT_NAME",
    "NoSuchProfile",
    "Profile",
    "ProfileBusy",
    "ProfileError",
    "ProfileLock",
    "ProfileSettings",
    "WrongProfilePassphrase",
    "ask_passphrase",
    "data_home",
    "list_profiles",
]
