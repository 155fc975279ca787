"""deploy/nats.conf and the parts of docs/scaling.md that are added to it, as they are for servers on this machine."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONF: Final = (ROOT / "deploy" / "nats.conf").read_text()
SCALING: Final = (ROOT / "docs" / "scaling.md").read_text()


def make_certificates(directory: Path) -> None:
    """Run the commands that stand in nats.conf, with this machine's address beside the servers' names."""
    commands = re.findall(r"^#     (openssl .*)$", CONF, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        here = replaced(command, "DNS:nats1", "DNS:nats1,IP:127.0.0.1") if "subjectAltName" in command else command
        subprocess.run(["sh", "-c", here], cwd=directory, check=True, capture_output=True, timeout=60)


def replaced(text: str, old: str, new: str) -> str:
    """Return the text with every `old` replaced, which has to be there."""
    assert old in text, f"there is no {old!r}"
    return text.replace(old, new)


def configuration(certificates: Path, *, client: int, route: int, monitor: int) -> str:
    """Return nats.conf with these ports, on loopback."""
    text = replaced(CONF, "/etc/nats", str(certificates))
    for old, new in ((4222, client), (6222, route)):
        text = replaced(text, f"0.0.0.0:{old}", f"127.0.0.1:{new}").replace(f":{old}", f":{new}")
    return replaced(text, ":8222", f":{monitor}")


def region(conf: str, name: str, routes: Sequence[int]) -> str:
    """Return a configuration as that of one server of a region, whose servers have these ports for each other."""
    conf, count = re.subn(r"routes: \[.*\]", f"routes: [{_urls(routes)}]", conf)
    assert count == 1
    return replaced(conf, 'name: "blindrelay"', f'name: "{name}"')


def gateway(certificates: Path, name: str, port: int, others: Mapping[str, Sequence[int]]) -> str:
    """Return what docs/scaling.md adds for gateways.

    Args:
        certificates: where they lie.
        name: the region's.
        port: where its server listens for others.
        others: the ports of each region, as they are seen from here.
    """
    text = replaced(_block("gateway {"), "/etc/nats", str(certificates))
    text = replaced(text, 'name: "eu"\n', f'name: "{name}"\n')
    text = replaced(text, "0.0.0.0:7222", f"127.0.0.1:{port}")
    for each, ports in others.items():
        text, count = re.subn(rf'(\{{ name: "{each}", urls: )\[.*\]', rf"\1[{_urls(ports)}]", text)
        assert count == 1, each
    return text


def leaf_accepted(certificates: Path, port: int) -> str:
    """Return what docs/scaling.md adds where the connections of leaf nodes arrive."""
    text = replaced(_block("leafnodes", "listen:"), "/etc/nats", str(certificates))
    return replaced(text, "0.0.0.0:7422", f"127.0.0.1:{port}")


def leaf_opened(certificates: Path, ports: Sequence[int]) -> str:
    """Return what docs/scaling.md adds at a leaf node; `ports` are those of the servers that take it."""
    text = replaced(_block("leafnodes", "remotes:"), "/etc/nats", str(certificates))
    text, count = re.subn(r"urls: \[.*\]", f"urls: [{_urls(ports)}]", text)
    assert count == 1
    return text


def _urls(ports: Sequence[int]) -> str:
    return ", ".join(f'"tls://127.0.0.1:{port}"' for port in ports)


def _block(*parts: str) -> str:
    """Return the block of configuration in docs/scaling.md that has these parts."""
    blocks = re.findall(r"```text\n(.*?)```", SCALING, re.DOTALL)
    (found,) = (block for block in blocks if all(part in block for part in parts))
    return str(found)
