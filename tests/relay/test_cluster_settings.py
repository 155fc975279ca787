"""Settings of a cluster: what they are, what contradicts what, and the files that they name."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
import structlog

from keys.errors import KeyFileError
from keys.nats_credentials import read_credentials
from keys.primitives import ed25519_keypair, ed25519_verify
from relay import cluster
from relay.__main__ import main
from relay.cluster import check_cluster, cluster_options
from relay.settings import PREFIX, BadSettings, Settings, load
from relay.settings_checks import warn_of_nats
from relay.voice import say_what_is_on
from tests.support.certificates import make_certificate

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "ab" * 32
NATS = ["--nats", "tls://one.example:4222,tls://two.example", "--cluster-secret-file", "/run/secret"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in ("XDG_STATE_HOME", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def read(*arguments: str, **variables: str) -> Settings:
    return load(arguments, {**os.environ, **variables})


def refused(*arguments: str, **variables: str) -> str:
    with pytest.raises(BadSettings) as caught:
        read(*arguments, **variables)
    return str(caught.value)


def closed(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# --- Values ----------------------------------------------------------------------------------------------------------


def test_without_them_there_is_no_cluster() -> None:
    settings = read()
    assert (settings.workers, settings.nats) == (1, ())
    assert check_cluster(settings) == []
    assert cluster_options(settings) is None


def test_everything_reaches_the_backplane(tmp_path: Path) -> None:
    secret = closed(tmp_path / "secret", f"{SECRET}\n")
    settings = read(
        "--nats", "tls://one.example:4222", "--nats", "tls://two.example", "--cluster-secret-file", str(secret),
        "--nats-ca", "/ca", "--nats-cert", "/cert", "--nats-key", "/key", "--nats-user", "june",
        RELAY_NATS_PASSWORD="hunter2",
    )  # fmt: skip
    options = cluster_options(settings, "worker-3")
    assert options is not None
    assert options.servers == ("tls://one.example:4222", "tls://two.example")
    assert options.secret == bytes.fromhex(SECRET)
    assert tuple(map(str, (options.ca, options.certificate, options.key))) == ("/ca", "/cert", "/key")
    assert (options.user, options.password, options.node) == ("june", "hunter2", "worker-3")
    assert "hunter2" not in repr(options) + repr(settings)
    creds = cluster_options(read(*NATS[:2], "--nats-creds", "/creds", RELAY_CLUSTER_SECRET=SECRET))
    assert creds is not None
    assert str(creds.credentials) == "/creds"
    assert (creds.user, creds.password, creds.secret) == (None, None, bytes.fromhex(SECRET))


def test_one_server_twice_is_one() -> None:
    assert read("--nats", "nats://a,nats://b,nats://a", *NATS[2:]).nats == ("nats://a", "nats://b")


@pytest.mark.parametrize("count", ["0", "-1", "129", "many"])
def test_numbers_of_workers_that_cannot_be(count: str) -> None:
    assert "workers is" in refused("--workers", count)


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ("ws://a", "nats://HOST:PORT or tls://HOST:PORT"),
        ("a.example:4222", "nats://HOST:PORT or tls://HOST:PORT"),
        ("nats://", "nats://HOST:PORT or tls://HOST:PORT"),
        ("nats://a/path", "nats://HOST:PORT or tls://HOST:PORT"),
        ("nats://june:hunter2@a", "set nats_user and nats_password"),
        ("nats://a:0", "a port is 1 at least"),
        ("nats://a:99999", "ort"),
        ("nats://a,tls://b", "do not go together"),
    ],
)
def test_servers_that_cannot_be(servers: str, told: str) -> None:
    assert told in refused("--nats", servers, *NATS[2:])


# --- Contradictions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alone",
    [["--nats-creds", "/c"], ["--nats-user", "june"], ["--nats-ca", "/c"], ["--nats-cert", "/c"], ["--nats-key", "/k"]],
)
def test_what_is_for_nats_servers_needs_some(alone: list[str]) -> None:
    for workers in ([], ["--workers", "4"]):
        assert "is for the servers of --nats, and there are none" in refused(*alone, *workers)


def test_a_secret_goes_with_nats_and_nats_with_a_secret() -> None:
    assert "go with --nats; --workers alone makes a secret of its own" in refused(*NATS[2:], "--workers", "2")
    told = refused(*NATS[:2])
    assert "--nats needs cluster_secret_file" in told
    assert "python -m relay cluster-secret FILE" in told
    assert "(nats: flag --nats; cluster_secret_file: default)" in told
    assert "are both set" in refused(*NATS, RELAY_CLUSTER_SECRET=SECRET)


@pytest.mark.parametrize("secret", ["abc", "zz" * 32, SECRET + "0", ""])
def test_a_secret_that_is_none_is_not_repeated(secret: str) -> None:
    told = refused(*NATS[:2], RELAY_CLUSTER_SECRET=secret)
    assert "64 hex digits" in told
    assert not secret or secret not in told


def test_what_goes_together() -> None:
    assert "nats_user and nats_password go together" in refused(*NATS, "--nats-user", "june")
    assert "nats_user and nats_password go together" in refused(*NATS, RELAY_NATS_PASSWORD="hunter2")
    assert "nats_cert and nats_key go together" in refused(*NATS, "--nats-cert", "/cert")
    assert "nats_creds stands in place of" in refused(*NATS, "--nats-creds", "/c", "--nats-user", "june")
    assert "are for TLS: write tls:// in --nats" in refused("--nats", "nats://a", *NATS[2:], "--nats-ca", "/ca")


def test_secrets_are_no_flags() -> None:
    for flag in ("--nats-password", "--cluster-secret"):
        told = refused(flag, "hunter2")
        assert f"{flag}: a secret cannot be a flag" in told
        assert "hunter2" not in told


# --- What had better not be -------------------------------------------------------------------------------------------

USER = ["--nats-user", "june"]


@pytest.mark.parametrize(
    ("servers", "bare"),
    [
        ("nats://nats1:4222,nats://127.0.0.1", ["nats://nats1:4222"]),
        ("nats://10.1.2.3:4222,nats://[fd00::1]:4222", ["nats://10.1.2.3:4222", "nats://[fd00::1]:4222"]),
        ("nats://127.0.0.1:4222,nats://[::1],nats://localhost,nats://127.8.8.8", []),
        ("tls://nats1:4222", []),
    ],
)
def test_a_password_in_clear_is_warned_of(
    servers: str, bare: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read("--nats", servers, *USER, RELAY_NATS_PASSWORD="hunter2", RELAY_CLUSTER_SECRET=SECRET)
    told = warn_of_nats(settings)
    assert [text.partition(" in clear: ")[0] for text in told] == [f"nats_password goes to {each}" for each in bare]
    assert all("tls://" in text and "--nats-creds" in text for text in told)
    # It can be used all the same, and both say so.
    monkeypatch.setenv("RELAY_NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("RELAY_CLUSTER_SECRET", SECRET)
    assert main(["config", "check", "--nats", servers, *USER]) == 0
    said = capsys.readouterr().out
    assert [line.removeprefix("warning: ") for line in said.splitlines() if line.startswith("warning: ")] == told
    assert said.endswith("ok\n")
    assert "hunter2" not in said
    with structlog.testing.capture_logs() as lines:
        say_what_is_on({"admin": "off"}, settings)
    assert [line["advice"] for line in lines if line["event"] == "nats_password_in_clear"] == told


def test_without_a_password_there_is_nothing_to_warn_of() -> None:
    assert warn_of_nats(read()) == []
    assert warn_of_nats(read("--nats", "nats://a", *NATS[2:])) == []
    assert warn_of_nats(read("--nats", "nats://a", *NATS[2:], "--nats-creds", "/creds")) == []


# --- The files -------------------------------------------------------------------------------------------------------


def test_minting_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "secret"
    assert main(["cluster-secret", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text().strip()
    assert len(bytes.fromhex(text)) == 32
    assert text not in "".join(capsys.readouterr())
    # It is not replaced: a cluster whose relays have different ones is none.
    assert main(["cluster-secret", str(path)]) == 2
    assert path.read_text().strip() == text
    assert "exists and is not overwritten" in capsys.readouterr().err
    options = cluster_options(read(*NATS[:2], "--cluster-secret-file", str(path)))
    assert options is not None
    assert options.secret == bytes.fromhex(text)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--out"]])
def test_minting_takes_a_file(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-secret", *arguments]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m relay cluster-secret FILE")


def test_help_for_minting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-secret", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_config_check_looks_at_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "none"
    arguments = ["--nats", "tls://a", "--cluster-secret-file", str(nothing), "--nats-ca", str(nothing)]
    assert main(["config", "check", *arguments]) == 2
    told = capsys.readouterr().err
    assert f"there is no cluster secret {nothing}; copy it from another relay" in told
    assert f"cannot read {nothing}: No such file" in told
    secret = closed(tmp_path / "secret", f"{SECRET}\n")
    chain, key = make_certificate(tmp_path)
    good = ["--nats", "tls://a", "--cluster-secret-file", str(secret), "--nats-ca", str(chain)]
    assert main(["config", "check", *good, "--nats-cert", str(chain), "--nats-key", str(key)]) == 0
    assert SECRET not in "".join(capsys.readouterr())
    assert main(["config", "check", *good, "--nats-cert", str(chain), "--nats-key", str(secret)]) == 2
    assert "no key without a passphrase" in capsys.readouterr().err
    assert main(["config", "check", *good[:4], "--nats-ca", str(secret)]) == 2
    assert f"no certificate in {secret}" in capsys.readouterr().err
    assert main(["config", "check", "--workers", "3"]) == 0


@pytest.mark.parametrize(
    ("text", "mode", "told"), [(SECRET, 0o640, "chmod 600"), ("secret", 0o600, "64 hex digits"), ("", 0o600, "64 hex")]
)
def test_a_secret_file_that_cannot_be_used(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = closed(tmp_path / "secret", text, mode)
    (problem,) = check_cluster(read(*NATS[:2], "--cluster-secret-file", str(path)))
    assert told in problem
    assert str(path) in problem
    assert SECRET not in problem


@pytest.mark.parametrize("arguments", [["--workers", "2"], [*NATS[:2]]])
def test_a_missing_extra_is_told_with_the_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (problem,) = check_cluster(
        read(*arguments, **({} if "--workers" in arguments else {"RELAY_CLUSTER_SECRET": SECRET}))
    )
    assert problem == f"{arguments[0]} needs the extra `cluster`: pip install -c constraints.txt '.[cluster]'"


def test_the_program_is_looked_for_beside_python_then_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, on_path = tmp_path / "a", tmp_path / "b"
    for directory in (beside, on_path):
        directory.mkdir()
        closed(directory / "nats-server", "", 0o700)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(on_path))
    assert cluster.find_nats_server() == beside / "nats-server"
    (beside / "nats-server").unlink()
    assert cluster.find_nats_server() == on_path / "nats-server"
    (on_path / "nats-server").unlink()
    assert cluster.find_nats_server() is None
    (problem,) = check_cluster(read("--workers", "2"))
    assert "--workers without --nats needs the program nats-server, which the extra `cluster` brings" in problem
    # With servers of one's own none is needed.
    assert check_cluster(read("--workers", "2", "--nats", "nats://a", RELAY_CLUSTER_SECRET=SECRET)) == []


# --- Credentials -----------------------------------------------------------------------------------------------------

SEED = bytes(range(32))


def creds(kind: int = 20, seed: bytes = SEED, *, damaged: bool = False) -> str:
    """A credentials file with a seed of this kind: 20 is a user, 0 an account."""
    prefix = kind << 3
    raw = bytes((18 << 3 | prefix >> 5, (prefix & 31) << 3)) + seed
    raw += (binascii.crc_hqx(raw, 0) ^ damaged).to_bytes(2, "little")
    text = base64.b32encode(raw).decode().rstrip("=")
    return (
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{text}\n------END USER NKEY SEED------\n"
    )


def test_credentials_sign_the_nonce_of_the_server(tmp_path: Path) -> None:
    found = read_credentials(closed(tmp_path / "creds", creds()))
    assert found.jwt == b"eyJ0.eyJq.c2ln"
    public, _ = ed25519_keypair(SEED)
    assert ed25519_verify(public, base64.b64decode(found.sign(b"nonce")), b"nonce")
    assert "eyJ" not in repr(found)
    assert check_cluster(read(*NATS[:2], "--nats-creds", str(tmp_path / "creds"), RELAY_CLUSTER_SECRET=SECRET)) == []


def test_a_seed_as_the_tools_of_nats_write_it(tmp_path: Path) -> None:
    """The example of NATS' own documentation, and its public key."""
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    ours = creds().partition("\nSU")[2].partition("\n")[0]
    found = read_credentials(closed(tmp_path / "known", creds().replace(f"SU{ours}", seed)))
    decoded = base64.b32decode(public + "=" * (-len(public) % 8))
    assert ed25519_verify(decoded[1:-2], base64.b64decode(found.sign(b"nonce")), b"nonce")
    assert "\nSA" in creds(kind=0)
    assert read_credentials(closed(tmp_path / "creds", creds().replace("\n", "\r\n"))).jwt == b"eyJ0.eyJq.c2ln"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (creds(), 0o644, "chmod 600"),
        ("", 0o600, "holds no NATS credentials"),
        (creds(damaged=True), 0o600, "is damaged"),
        (creds(seed=SEED[:31]), 0o600, "is damaged"),
        (creds(kind=0), 0o600, "is not that of a user"),
        (creds().replace("\nSU", "\n!!"), 0o600, "is damaged"),
    ],
)
def test_credentials_that_cannot_be_used(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = closed(tmp_path / "creds", text, mode)
    with pytest.raises(KeyFileError, match=told):
        read_credentials(path)
    with pytest.raises(KeyFileError, match="there are no NATS credentials"):
        read_credentials(tmp_path / "none")
