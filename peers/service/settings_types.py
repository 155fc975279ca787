"""Kinds of values that the settings of services have in common."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from keys.invite import RelayCard
from peers.client import BadOption, ClientOptions
from peers.service.listening import parse_listen


class ServiceSettings(BaseSettings):
    """Settings that take what is passed in and nothing else: :class:`peers.service.settings_sources.Names` reads the
    sources."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the values that were passed in as the only source."""
        return (init_settings,)


def state_directory(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return systemd's state directory, else `name` in the XDG one of this user: the same place from every working
    directory."""
    state = environ.get("STATE_DIRECTORY")
    if state:
        return Path(state.split(":")[0])
    home = environ.get("XDG_STATE_HOME")
    base = Path(home) if home else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return base / name


def state_directory_text(name: str) -> str:
    """Return :func:`state_directory` in words, the same on every machine."""
    return f"`$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/{name}`, else `~/.local/state/{name}`"


def _check_listen(text: str) -> str:
    parse_listen(text)
    return text


def _check_card(text: str) -> str:
    if text:
        RelayCard.parse(text)  # its error is a ValueError, as pydantic wants it
    return text


def _check_token(secret: SecretStr) -> SecretStr:
    try:
        ClientOptions(token=secret.get_secret_value())
    except BadOption as error:
        raise ValueError(str(error)) from None
    return secret


def _check_given(value: object) -> object:
    if value == "" or "\0" in str(value):
        raise ValueError("it is no file name: give it another value or remove it")
    return value


GivenPath = Annotated[Path, BeforeValidator(_check_given)]
Listen = Annotated[str, AfterValidator(_check_listen)]
CardText = Annotated[str, AfterValidator(_check_card)]
AdmissionToken = Annotated[SecretStr, AfterValidator(_check_token)]
