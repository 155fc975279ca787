"""The lock of a profile: whoever holds it may connect to the relay.

A relay serves an id once. Two programs of one person that both connected would push each other out for ever, so a
program that does not get the lock works on the store alone: what it wants sent it leaves there, for the one that is
connected.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from peers.profile.errors import ProfileBusy, ProfileError

_MODE: Final = 0o600


class ProfileLock:
    """An exclusive lock on a file, taken at once or not at all.

    The kernel keeps it with the open file (flock(2)): it goes when the process ends in whatever way, it is not passed
    to programs that this one starts, and two of these objects exclude each other in one process as well. The file is
    never removed: a holder of a removed one and a holder of its successor would both think that they are alone.

    Args:
        path: the file; made if it is missing, in a directory that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._process = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock. Its copy in a forked child does not."""
        return self._descriptor is not None and self._process == os.getpid()

    def acquire(self) -> bool:
        """Take the lock; return False if somebody else has it. Does not wait.

        Raises:
            ProfileError: the file cannot be opened or locked.
            RuntimeError: this object holds it already.
        """
        if self.held:
            raise RuntimeError("the lock is held already")
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        except OSError as error:
            raise ProfileError(f"cannot open {self._path}: {error.strerror}") from None
        try:
            os.fchmod(descriptor, _MODE)  # the umask may have taken bits of the owner's
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise ProfileError(
                f"cannot lock {self._path}: {error.strerror}; put the profile on a file system that has locks"
            ) from None
        self._descriptor, self._process = descriptor, os.getpid()
        return True

    def release(self) -> None:
        """Give the lock back. Does nothing if it is not held."""
        held = self.held
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            # Closing alone would leave the lock to a child that was forked meanwhile and shares the open file. Such a
            # child, on the other hand, must not take it from its parent.
            if held:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            ProfileBusy: somebody else has it.
            ProfileError: as :meth:`acquire`.
        """
        if not self.acquire():
            raise ProfileBusy(f"another program uses the profile in {self._path.parent}; end it first")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()
