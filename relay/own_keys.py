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
from relay.settings_names import FILE_SUFFIX, KEY_VARIABLES
from relay.settings_sources import secret_files

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
    """Return the relay's keys: from the environment or the secrets directory, the file that was named, or the data
    directory, where they are minted if they are not there.

    Raises:
        KeyFileError: they cannot be used, come from two places, or would have to be minted where they would be gone at
            the next start; the text says what to do.
    """
    found = look_for_keys(settings, environ)
    if found is not None:
        return FoundKeys(found, None)
    path = settings.data_dir / KEY_FILE
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


def look_for_keys(settings: Settings, environ: Mapping[str, str]) -> ServerKeys | None:
    """Return the relay's keys if there are any; mints none.

    Raises:
        KeyFileError: they cannot be used, or come from two places.
    """
    from_environment = server_keys_from_environment(_with_secrets(settings, environ))
    if from_environment is not None:
        if settings.keys is not None:
            raise KeyFileError(
                f"the keys are given twice, in the environment and by --keys {settings.keys}: remove one of them"
            )
        return _with_notifier(from_environment, settings)
    if settings.keys is not None:
        return _with_notifier(read_server_keys(settings.keys), settings)
    path = settings.data_dir / KEY_FILE
    return _with_notifier(read_server_keys(path), settings) if path.exists() else None


def keys_place(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return in words where the keys are looked for first; reads none of them."""
    variables = _with_secrets(settings, environ)
    for variable in KEY_VARIABLES:
        if variable in variables:
            return f"variable {variable}"
        if f"{variable}{FILE_SUFFIX}" in variables:
            return f"file {variables[f'{variable}{FILE_SUFFIX}']}"
    return f"file {settings.keys or settings.data_dir / KEY_FILE}"


def _with_secrets(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment, and where that is silent the files of the secrets directory, by their `_FILE` names."""
    if settings.secrets_dir is None:
        return environ
    try:
        files = dict(secret_files(settings.secrets_dir))
    except OSError as error:
        raise KeyFileError(f"cannot read {settings.secrets_dir}: {error.strerror}") from None
    named = {
        f"{variable}{FILE_SUFFIX}": str(files[variable])
        for variable in KEY_VARIABLES
        if variable in files and variable not in environ
    }
    return {**named, **environ}


def _with_notifier(keys: ServerKeys, settings: Settings) -> ServerKeys:
    if settings.notifier_id is None:
        return keys
    return ServerKeys(keys.identity, bytes.fromhex(settings.notifier_id))
