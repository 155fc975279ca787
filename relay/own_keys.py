"""Where the relay's own keys come from, and the minting of them at the first start."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from keys.errors import KeyFileError
from keys.files import ServerKeys, read_server_keys, server_keys_from_environment, write_server_keys
from keys.identity import Identity
from relay.container import keys_would_vanish
from relay.settings import Settings

KEY_FILE = "relay.keys"


class FoundKeys(NamedTuple):
    """The relay's keys, and the file they were just minted into, if they were."""

    keys: ServerKeys
    minted: Path | None


def find_keys(
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    would_vanish: Callable[[Path, Mapping[str, str]], bool] = keys_would_vanish,
) -> FoundKeys:
    """Return the relay's keys: from the environment, the file that was named, or the data directory.

    Raises:
        KeyFileError: they cannot be used, come from two places, or would have to be minted where they would be gone at
            the next start; the text says what to do.
    """
    from_environment = server_keys_from_environment(environ)
    if from_environment is not None:
        if settings.keys is not None:
            raise KeyFileError(
                f"the keys are given twice, in the environment and by --keys {settings.keys}: remove one of them"
            )
        return FoundKeys(_with_notifier(from_environment, settings), None)
    if settings.keys is not None:
        return FoundKeys(_with_notifier(read_server_keys(settings.keys), settings), None)
    path = settings.data_dir / KEY_FILE
    if path.exists():
        return FoundKeys(_with_notifier(read_server_keys(path), settings), None)
    if would_vanish(settings.data_dir, environ):
        # A relay whose keys change at every start locks out everybody who pinned them.
        raise KeyFileError(
            f"no keys yet, and {settings.data_dir} is inside a container and on no volume that has a name: keys minted "
            "there would be gone at the next start. Mount a volume there (docker run -v blindrelay:/data …), or give "
            "the keys by --keys FILE or by RELAY_X25519_SECRET_FILE and RELAY_ED25519_SECRET_FILE (blindrelay-keygen "
            "mints them)."
        )
    keys = ServerKeys(Identity.generate())
    write_server_keys(path, keys)
    return FoundKeys(_with_notifier(keys, settings), path)


def _with_notifier(keys: ServerKeys, settings: Settings) -> ServerKeys:
    if settings.notifier_id is None:
        return keys
    return ServerKeys(keys.identity, bytes.fromhex(settings.notifier_id))
