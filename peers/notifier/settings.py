"""The notifier's settings: each is a flag, a `NOTIFIER_…` variable and a key of notifier.toml, and stands once, here.

Flags stand above variables, these above notifier.toml, that above the defaults. A secret is a variable, or stands in a
file that the variable with `_FILE` appended names; it is never a flag, for everybody on the machine can read those.
The variables of telefon's notifier are among these, so that its environment goes on working.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from keys.errors import BadKey, KeysError
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from keys.primitives import KEY_SIZE
from peers.notifier.errors import BadNotifierSettings
from peers.notifier.limits import Limits
from peers.service.settings_sources import Names
from peers.service.settings_types import (
    AdmissionToken,
    CardText,
    GivenPath,
    Listen,
    ServiceSettings,
    state_directory,
)

_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_SIZE}}}")


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return systemd's state directory, else the XDG one of this user: the same place from every working directory."""
    return state_directory("blindrelay-notifier", environ)


def parse_key(text: str) -> bytes:
    """Return a key of 32 bytes: 64 hex digits, or base64 of either alphabet, as telefon's programs write them.

    Raises:
        ValueError: it is neither; the text does not repeat it.
    """
    text = text.strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        text = text.rstrip("=").replace("-", "+").replace("_", "/")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise ValueError(f"it has to be {2 * KEY_SIZE} hex digits, or base64 of {KEY_SIZE} bytes")
    return key


def _check_key(text: str) -> str:
    if text:
        parse_key(text)
    return text


def _check_secret_key(secret: SecretStr) -> SecretStr:
    parse_key(secret.get_secret_value())
    return secret


def _split(value: object) -> object:
    return [part for part in re.split(r"[,\s]+", value) if part] if isinstance(value, str) else value


KeyText = Annotated[str, AfterValidator(_check_key)]
SecretKey = Annotated[SecretStr, AfterValidator(_check_secret_key)]


class Settings(ServiceSettings):
    """The notifier of a relay: it turns the relay's wakes into pushes."""

    config: GivenPath | None = None
    """The TOML file with settings; without it `notifier.toml` in the data directory, if there is one."""
    data_dir: GivenPath = Field(default_factory=default_data_dir)
    """Where its keys and its registry are."""
    relay_card: CardText = ""
    """The relay, as the card `R0…` that it prints when it mints its keys."""
    ws_url: str = ""
    """The relay's address in place of a card, with both its keys; `WS_URL` is another name of the variable."""
    server_x_pub: KeyText = ""
    """The relay's X25519 key, for ws_url: 64 hex digits or base64."""
    server_ed_pub: KeyText = ""
    """The relay's Ed25519 key, for ws_url."""
    token: AdmissionToken | None = None
    """The relay's admission token, if it asks for one."""
    x_seed: SecretKey | None = None
    """The notifier's X25519 secret, for an identity that does not come from `notifier.keys`; with ed_seed."""
    ed_seed: SecretKey | None = None
    """The notifier's Ed25519 secret."""
    registry: GivenPath | None = None
    """The JSON registry of telefon's notifier: read once, into our own registry; the file stays as it is."""
    contact: str = ""
    """Where push services reach you, mailto:YOU@EXAMPLE.ORG or https://…: they are told it. Switches Web Push and
    UnifiedPush on."""
    webpush: bool = True
    """Whether Web Push is offered (with a contact)."""
    unifiedpush: bool = True
    """Whether UnifiedPush is offered (with a contact)."""
    allow_host: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Push servers of your own that may be in your network: [http://]HOST[:PORT]. All others have to be https and
    public."""
    nat64: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """The prefix of the NAT64 by which this machine reaches IPv4, such as 64:ff9b::/96. An address in it is taken for
    the IPv4 address within; without this setting 64:ff9b::/96 and 64:ff9b:1::/48 are refused."""
    fcm_account: GivenPath | None = None
    """The JSON file of a Google service account, mode 0600: switches FCM on."""
    fcm_project: str = ""
    """The Firebase project; by default the account's own."""
    apns_key: GivenPath | None = None
    """The .p8 file of an APNs key, mode 0600: switches APNs on, with the next three. Needs the extra `apns`."""
    apns_key_id: str = ""
    """Its id: ten characters."""
    apns_team_id: str = ""
    """The id of the team: ten characters."""
    apns_topic: str = ""
    """The app's bundle id."""
    apns_sandbox: bool = False
    """Whether tokens are of apps that Xcode installed."""
    admin: Listen = "127.0.0.1:9610"
    """Address and port of the listener with /healthz, /readyz, /status and /metrics; `off` for none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to standard error."""
    limits: Limits = Field(default_factory=Limits)
    """Limits."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.x_seed is None) != (self.ed_seed is None):
            raise ValueError("x_seed and ed_seed are a pair: set both or neither")
        by_parts = bool(self.ws_url or self.server_x_pub or self.server_ed_pub)
        if self.relay_card and by_parts:
            raise ValueError("relay_card says it all: remove ws_url, server_x_pub and server_ed_pub")
        if by_parts and not (self.ws_url and self.server_x_pub and self.server_ed_pub):
            raise ValueError("ws_url, server_x_pub and server_ed_pub go together; or set relay_card")
        apns = (self.apns_key_id, self.apns_team_id, self.apns_topic)
        if self.apns_key is not None and not all(apns):
            raise ValueError("apns_key takes apns_key_id, apns_team_id and apns_topic as well")
        if self.apns_key is None and any(apns):
            raise ValueError("apns_key is missing: the .p8 file")
        return self

    @property
    def identity(self) -> Identity | None:
        """The notifier's keys, if they come from the environment.

        Raises:
            BadKey: they must not be used.
        """
        if self.x_seed is None or self.ed_seed is None:
            return None
        return Identity(parse_key(self.x_seed.get_secret_value()), parse_key(self.ed_seed.get_secret_value()))

    @property
    def relay(self) -> RelayCard:
        """The relay.

        Raises:
            BadNotifierSettings: none is named, or its keys must not be used.
        """
        if self.relay_card:
            return RelayCard.parse(self.relay_card)
        if not self.ws_url:
            raise BadNotifierSettings(
                [f"no relay is named: set relay_card ({NAMES.variable_of('relay_card')}) to the card R0… of your relay"]
            )
        try:
            public = PublicIdentity(parse_key(self.server_x_pub), parse_key(self.server_ed_pub))
            return RelayCard(public, self.ws_url)
        except (BadKey, KeysError) as error:
            raise BadNotifierSettings([f"ws_url, server_x_pub, server_ed_pub: {error}"]) from None


NAMES: Final = Names(Settings, "NOTIFIER_", "notifier.toml", {"limits": Limits}, {"WS_URL": "ws_url"})
"""What they are called; one variable without our prefix is telefon's."""


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags, variables and notifier.toml give. Nothing else of `environ` is looked at.

    Args:
        flags: by key, those of limits with their table: `limits.message_window`.
        environ: the variables.

    Raises:
        BadNotifierSettings: a line for each problem, with its name and where it was set; never a secret.
    """
    return NAMES.load(flags, environ, {"data_dir": default_data_dir(environ)}).settings
