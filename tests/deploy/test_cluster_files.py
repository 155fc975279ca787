"""nats.conf and compose.cluster.yaml: against a real server, the settings, and the other files of deploy/."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import nats
import pytest
import yaml  # type: ignore[import-untyped]

from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from relay.backplane.options import DEFAULT_PREFIX
from relay.cluster import find_nats_server, mint
from relay.limits import Limits
from relay.nats_server import MAX_PAYLOAD
from relay.settings import NAMES, load
from relay.usable import check_usable
from tests.deploy.proxies import DEPLOY, free_port
from tests.support.clients import run_async
from tests.support.nats_files import CONF, configuration, make_certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats.aio.client import Client

TEXT: Final = (DEPLOY / "compose.cluster.yaml").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(TEXT)
ALONE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RELAYS: Final = ("relay1", "relay2", "relay3")
SERVERS: Final = ("nats1", "nats2", "nats3")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nats")
    make_certificates(directory)
    return directory


def written(directory: Path, client: int = 4222, route: int = 6222, monitor: int = 8222) -> Path:
    """Return nats.conf as it is for one server on this machine, beside the certificates in `directory`."""
    path = directory / f"nats-{client}.conf"
    path.write_text(configuration(directory, client=client, route=route, monitor=monitor))
    return path


def nats_server() -> str:
    program = find_nats_server()
    assert program is not None
    return str(program)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("name", SERVERS)
def test_the_server_understands_it(certificates: Path, name: str) -> None:
    done = subprocess.run(
        [nats_server(), "-t", "-c", str(written(certificates))],
        env={"PATH": os.environ["PATH"], "NATS_NAME": name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr


@asynccontextmanager
async def running(certificates: Path) -> AsyncIterator[int]:
    port = free_port()
    path = written(certificates, port, free_port(), free_port())
    process = await asyncio.create_subprocess_exec(
        nats_server(),
        "-c",
        str(path),
        env={"PATH": os.environ["PATH"], "NATS_NAME": "nats1"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = b""
        while b"Server is ready" not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
        yield port
    finally:
        process.kill()
        await process.communicate()


async def connected(certificates: Path, port: int, told: asyncio.Queue[str], *, shown: bool = True) -> Client:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if shown:
        context.load_cert_chain(certificates / "relay.pem", certificates / "relay.key")

    async def note(error: Exception) -> None:
        told.put_nowait(str(error))

    return await nats.connect(
        f"tls://127.0.0.1:{port}",
        tls=context,
        error_cb=note,
        allow_reconnect=False,
        connect_timeout=10,
        inbox_prefix=f"{DEFAULT_PREFIX}.inbox",
    )


@pytest.mark.needs("openssl")
@run_async
async def test_a_relay_has_its_subjects_and_no_others(certificates: Path) -> None:
    async with running(certificates) as port:
        told: asyncio.Queue[str] = asyncio.Queue()
        relay = await connected(certificates, port, told)
        subscription = await relay.subscribe(f"{DEFAULT_PREFIX}.node.one")
        await relay.publish(f"{DEFAULT_PREFIX}.node.one", bytes(2 * 1024 * 1024))
        assert len((await subscription.next_msg(20)).data) == 2 * 1024 * 1024
        with pytest.raises(nats.errors.NoRespondersError):
            await relay.request(f"{DEFAULT_PREFIX}.id.nobody", b"", timeout=20)
        assert told.empty()
        await relay.publish("elsewhere", b"")
        await relay.subscribe(">")
        await relay.flush()
        async with asyncio.timeout(20):
            for _ in range(2):
                assert "permissions violation" in (await told.get()).lower()
        await relay.close()
        with pytest.raises(Exception, match=r"(?i)certificate|tls|connection|eof|unexpected|broken pipe"):
            await connected(certificates, port, told, shown=False)


def test_it_says_what_the_private_server_is_told_too() -> None:
    assert f"max_payload: {MAX_PAYLOAD // 1024**2}MB\n" in CONF
    assert "jetstream" not in re.sub(r"#.*", "", CONF).lower()
    assert f'allow: ["{DEFAULT_PREFIX}.>"]' in CONF


# --- compose.cluster.yaml --------------------------------------------------------------------------------------------


def test_there_are_three_of_each_and_one_proxy() -> None:
    assert set(COMPOSE["services"]) == {*RELAYS, *SERVERS, "caddy"}
    assert all(COMPOSE["services"][name] == COMPOSE["services"]["relay1"] for name in RELAYS)
    for name in SERVERS:
        assert COMPOSE["services"][name]["environment"] == {"NATS_NAME": name}
        assert f"tls://{name}:6222" in CONF
        assert f"DNS:{name}" in CONF
    # Each of them serves: the proxy deals out.
    caddy = COMPOSE["services"]["caddy"]
    assert caddy["environment"]["BLINDRELAY_UPSTREAM"].split() == [f"{name}:8090" for name in RELAYS]
    assert set(caddy["depends_on"]) == set(RELAYS)


@pytest.mark.needs("openssl")
def test_the_relays_can_start_with_their_settings(certificates: Path, tmp_path: Path) -> None:
    """As the relay would read them, with what the commands at the top of the file make."""
    assert "scripts/run cluster-secret deploy/cluster/cluster.secret\n" in TEXT
    assert "scripts/keygen --out deploy/cluster/relay.keys " in TEXT
    write_server_keys(tmp_path / "relay.keys", ServerKeys(Identity.generate()))
    assert mint([str(tmp_path / "cluster.secret")]) == 0
    for name in ("ca.pem", "relay.pem", "relay.key"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    environ = {
        name: re.sub(r"\$\{[^}]*\}", "relay.example", value).replace("/cluster/", f"{tmp_path}/")
        for name, value in COMPOSE["services"]["relay1"]["environment"].items()
    }
    assert set(environ) <= set(NAMES.by_variable)
    settings = load([], {**environ, "HOME": str(tmp_path)})
    check_usable(settings)
    assert settings.nats == tuple(f"tls://{name}:4222" for name in SERVERS)
    assert COMPOSE["services"]["relay1"]["build"]["args"] == {"EXTRAS": "cluster"}


def test_containers_have_no_rights_that_they_do_not_use() -> None:
    for name, service in COMPOSE["services"].items():
        for setting in ("read_only", "cap_drop", "security_opt", "logging"):
            assert service[setting] == ALONE["services"]["relay"][setting], (name, setting)
        if name != "caddy":
            assert not {"ports", "cap_add", "privileged"} & set(service)
    assert COMPOSE["services"]["caddy"]["cap_add"] == ALONE["services"]["caddy"]["cap_add"]
    # Who is at the proxy does not reach NATS, and who is at NATS reaches nobody outside.
    assert COMPOSE["services"]["caddy"]["networks"] == ["front"]
    assert all(COMPOSE["services"][name]["networks"] == ["between"] for name in SERVERS)
    assert COMPOSE["networks"]["between"] == {"internal": True}
    trusted = COMPOSE["services"]["relay1"]["environment"]["RELAY_TRUSTED_PROXIES"]
    assert COMPOSE["networks"]["front"]["ipam"]["config"] == [{"subnet": trusted}]
    # Both may run on one machine.
    assert ALONE["networks"]["front"]["ipam"]["config"] != COMPOSE["networks"]["front"]["ipam"]["config"]
    assert int(COMPOSE["services"]["relay1"]["stop_grace_period"].removesuffix("s")) >= Limits().shutdown_deadline + 10


@pytest.mark.needs("caddy")
def test_the_proxy_knows_all_three() -> None:
    environ = {**os.environ, **COMPOSE["services"]["caddy"]["environment"], "BLINDRELAY_HOST": "relay.example"}
    done = subprocess.run(
        ["caddy", "adapt", "--config", str(DEPLOY / "Caddyfile"), "--adapter", "caddyfile"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert re.findall(r'"dial":"([^"]+)"', json.dumps(json.loads(done.stdout), separators=(",", ":"))) == [
        f"{name}:8090" for name in RELAYS
    ]


def test_what_must_not_be_committed_is_ignored() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "-q", "deploy/cluster/relay.keys"], cwd=DEPLOY.parent, check=False, timeout=60
    )
    assert done.returncode == 0
