"""Where profiles lie, how they are made, and who may look into them."""

import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keys import passphrase as pw
from keys.errors import BadInvite, KeyFileError, OpenError
from keys.files import ClientKeys, read_identity, write_identity
from keys.invite import RelayCard
from keys.private_file import make_directories, read_private
from peers.profile.errors import NoSuchProfile, ProfileError, WrongProfilePassphrase
from peers.profile.lock import ProfileLock
from peers.profile.settings import ProfileSettings, read_settings, write_settings

HOME_VARIABLE: Final = "BLINDRELAY_HOME"
NAME_VARIABLE: Final = "BLINDRELAY_PROFILE"
DEFAULT_NAME: Final = "default"
_APPLICATION: Final = "blindrelay"
# A name is a directory's: no separator, not hidden, neither . nor .., and nothing that a terminal or shell acts on.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]{16,128}")
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile, be it there or not. Nothing is read or made until a method says so.

    Args:
        name: 1 to 64 of ``A-Z a-z 0-9 . _ -``, beginning with a letter or digit.
        directory: where it lies.

    Raises:
        ProfileError: a name that is none.
    """

    name: str
    directory: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ProfileError(
                "a profile's name has 1 to 64 of the characters A-Z a-z 0-9 . _ - and begins with a letter or digit"
            )

    @classmethod
    def locate(cls, name: str | None = None, environ: Mapping[str, str] = os.environ) -> "Profile":
        """Return the profile `name`, or if that is None the one that BLINDRELAY_PROFILE names, or ``default``.

        It lies below BLINDRELAY_HOME, or if that is not set below the user's data directory (on Linux
        ``~/.local/share/blindrelay``, or as XDG_DATA_HOME says).

        Raises:
            ProfileError: a name or variable that cannot be used.
        """
        if name is None:
            name = _variable(environ, NAME_VARIABLE) or DEFAULT_NAME
        return cls(name, _profiles(environ) / name)

    @classmethod
    def create(
        cls,
        name: str | None,
        keys: ClientKeys,
        relay: RelayCard,
        passphrase: str | None = None,
        *,
        token_file: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        cost: pw.Cost = pw.DEFAULT_COST,
    ) -> "Profile":
        """Make a profile, all of it closed to others whatever the umask.

        The keys are written last, and a profile without them does not exist: what an interruption leaves behind is made
        anew by the next call. Under a passphrase this takes most of a second: not on an event loop.

        Args:
            name: as for :meth:`locate`.
            keys: the person's.
            relay: the relay to connect to.
            passphrase: as it was typed, to seal the keys; None leaves them readable to whoever has the file.
            token_file: see :class:`ProfileSettings`.
            environ: the environment.
            cost: what a guess at the passphrase shall cost.

        Raises:
            ProfileError: it exists, or cannot be made; nothing that existed is changed then.
            ProfileBusy: another program is making it.
        """
        profile = cls.locate(name, environ)
        settings = ProfileSettings(relay, token_file)
        sealed_by = None if passphrase is None else _encode(passphrase)
        try:
            make_directories(profile.directory)
        except OSError as error:
            raise ProfileError(f"cannot make {profile.directory}: {error.strerror}") from None
        profile.check_closed()
        # Of two at once, one would else write its settings under the keys of the other.
        with profile.lock():
            if profile.exists:
                raise ProfileError(f"the profile {profile.name} exists in {profile.directory}; choose another name")
            write_settings(profile.settings_path, settings)
            path = profile.identity_path
            try:
                make_directories(profile.files_path)
                # A file system without links may keep an empty file of an earlier attempt (see write_private).
                write_identity(path, keys, passphrase=sealed_by, cost=cost, overwrite=path.is_file())
            except OSError as error:
                raise ProfileError(f"cannot make {profile.files_path}: {error.strerror}") from None
            except KeyFileError as error:
                raise ProfileError(str(error)) from None
        return profile

    @property
    def identity_path(self) -> Path:
        """The key file."""
        return self.directory / "identity.keys"

    @property
    def settings_path(self) -> Path:
        """The settings."""
        return self.directory / "profile.toml"

    @property
    def store_path(self) -> Path:
        """The data base of contacts and history; made by who opens it."""
        return self.directory / "store.db"

    @property
    def files_path(self) -> Path:
        """The directory of received files, mode 0700."""
        return self.directory / "files"

    @property
    def lock_path(self) -> Path:
        """The file of :meth:`lock`."""
        return self.directory / "lock"

    @property
    def exists(self) -> bool:
        """Whether it is there, whole: its keys are. False too where others keep us from looking."""
        try:
            return self.identity_path.is_file() and self.identity_path.stat().st_size > 0
        except OSError:
            return False

    def check_closed(self) -> None:
        """Make sure that nobody else may look into the profile.

        Raises:
            ProfileError: it is not there, or group or others have any right to it; the text gives the ``chmod``.
        """
        try:
            mode = self.directory.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing() from None
        except OSError as error:
            raise ProfileError(f"cannot look into {self.directory}: {error.strerror}") from None
        if not stat.S_ISDIR(mode):
            raise ProfileError(f"{self.directory} is not a directory")
        if mode & _OTHERS:
            raise ProfileError(
                f"{self.directory} is open to others (mode {stat.S_IMODE(mode):04o}); "
                f"close it with: chmod 700 {shlex.quote(str(self.directory))}"
            )

    def lock(self) -> ProfileLock:
        """Return the lock of the profile, not taken: whoever holds it may connect to the relay."""
        return ProfileLock(self.lock_path)

    def settings(self) -> ProfileSettings:
        """Read the settings.

        Raises:
            ProfileError: there are none, they cannot be used, or the profile is open to others.
        """
        self._check_there()
        return read_settings(self.settings_path)

    def write_settings(self, settings: ProfileSettings) -> None:
        """Write the settings: all of them, whole or not at all.

        Raises:
            ProfileError: there is no such profile, it is open to others, or they cannot be written.
        """
        self._check_there()
        write_settings(self.settings_path, settings)

    def read_keys(self, passphrase: Callable[[], str] | None = None) -> ClientKeys:
        """Read the person's keys. If they are sealed this takes most of a second: not on an event loop.

        Args:
            passphrase: asked for the passphrase, only if they are sealed.

        Raises:
            WrongProfilePassphrase: they do not open.
            ProfileError: there are none, they cannot be used, or the profile is open to others.
        """
        self._check_there()
        try:
            return read_identity(self.identity_path, None if passphrase is None else lambda: _encode(passphrase()))
        except OpenError:
            raise WrongProfilePassphrase(
                f"the passphrase of {self.identity_path} is wrong, or the file has been changed"
            ) from None
        except (KeyFileError, BadInvite) as error:
            raise ProfileError(str(error)) from None

    def read_token(self) -> str | None:
        """Return the relay's admission token, if the settings name a file of it: the first line that holds one.

        Raises:
            ProfileError: the file cannot be read, is open to others, or holds no token.
        """
        name = self.settings().token_file
        if name is None:
            return None
        path = self.directory / name
        try:
            if not path.is_file():
                raise ProfileError(f"{self.settings_path}: token_file: there is no file {path}")
            lines = read_private(path).decode("latin-1").split("\n")
        except OSError as error:
            raise ProfileError(f"{self.settings_path}: token_file: cannot read {path}: {error.strerror}") from None
        except KeyFileError as error:
            raise ProfileError(f"{self.settings_path}: token_file: {error}") from None
        token = next((words for line in lines if (words := line.strip()) and not words.startswith("#")), "")
        if not _TOKEN.fullmatch(token):
            raise ProfileError(f"{path} holds no token: 16 to 128 characters of A-Z a-z 0-9 . _ ~ -")
        return token

    def _check_there(self) -> None:
        self.check_closed()
        try:
            whole = self.identity_path.stat().st_size > 0
        except FileNotFoundError:
            whole = False
        except OSError as error:
            raise ProfileError(f"cannot look into {self.directory}: {error.strerror}") from None
        if not whole:
            raise self._missing()

    def _missing(self) -> NoSuchProfile:
        option = "" if self.name == DEFAULT_NAME else f" --profile {self.name}"
        return NoSuchProfile(
            f"there is no profile {self.name} in {self.directory}; make it with: blindrelay-chat{option} init"
        )


def list_profiles(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the names of the profiles that exist, sorted. What is not whole is left out.

    Raises:
        ProfileError: their directory cannot be read.
    """
    directory = _profiles(environ)
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ProfileError(f"cannot read {directory}: {error.strerror}") from None
    return tuple(sorted(name for name in names if _NAME.fullmatch(name) and Profile(name, directory / name).exists))


def data_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory below which everything of a person lies: BLINDRELAY_HOME, or if that is not set the user's
    data directory.

    Raises:
        ProfileError: the variable cannot be used, or there is none and no way to find a directory.
    """
    home = _variable(environ, HOME_VARIABLE)
    if home is not None:
        return Path(home).absolute()
    try:
        from platformdirs import user_data_path
    except ImportError:
        raise ProfileError(
            f"name a directory for profiles by {HOME_VARIABLE}, or install the extra that finds one: "
            "python -m pip install 'blindrelay[chat]'"
        ) from None
    return user_data_path(_APPLICATION, appauthor=False)


def _profiles(environ: Mapping[str, str]) -> Path:
    return data_home(environ) / "profiles"


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    if value == "":
        # Nobody means that, and taking it for none would show another person's things in silence.
        raise ProfileError(f"{name} is empty: give it a value or remove it")
    if value is not None and "\0" in value:
        raise ProfileError(f"{name} cannot hold a zero byte")
    return value


def _encode(passphrase: str) -> bytes:
    try:
        return pw.encode_typed(passphrase)
    except ValueError as error:
        raise ProfileError(str(error)) from None
