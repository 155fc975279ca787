"""What the documents tell people to type, and what they quote: tried where possible, else held against the code."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from keys.invite import Invite, RelayCard
from peers.chat import cli  # noqa: F401 - registers the commands
from peers.chat.commands.frame import app
from peers.mailbox.arguments import parse as mailbox_arguments
from peers.mailbox.commands import COMMANDS as MAILBOX_COMMANDS
from peers.mailbox.settings_limits import LimitSettings as MailboxLimits
from peers.notifier.limits import Limits as NotifierLimits
from relay.limits import Limits
from relay.metrics import Exposition
from relay.reasons import Ending, Refusal
from relay.settings import NAMES, Settings, load
from tests.docs import markdown
from tests.relay.harness import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = markdown.ROOT
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "OPERATIONS.md").read_text()
WALKTHROUGH = (ROOT / "docs" / "walkthrough.md").read_text()
SECRETS = [f"RELAY_{kind}_SECRET{suffix}" for kind in ("X25519", "ED25519") for suffix in ("", "_FILE")]
TOKEN = "RELAY_TOKEN"


def commands(name: str) -> list[list[str]]:
    """Return the commands of a document's sh blocks, as words, without comments."""
    found = []
    for block in markdown.blocks((ROOT / name).read_text()):
        if block.language == "sh":
            found += [shlex.split(line, comments=True) for line in block.lines]
    return [words for words in found if words]


ALL = [
    (name, words)
    for name in ("README.md", "OPERATIONS.md", "SECURITY.md", "CONTRIBUTING.md")
    for words in commands(name)
]


# --- The first screen -------------------------------------------------------------------------------------------------


def test_readme_opens_with_one_sentence_and_the_commands() -> None:
    lines = README.splitlines()
    assert re.fullmatch(r"blindrelay is [^.!?]+\.", lines[0])
    assert lines[1] == ""
    assert lines[2] == "```sh"
    assert commands("README.md")[:3] == [["scripts/demo"], ["scripts/run"], ["scripts/test"]]


def test_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


# --- Commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", markdown.documents(), ids=lambda path: path.name)
def test_scripts_exist_and_can_be_executed(path: Path) -> None:
    for name in set(re.findall(r"\bscripts/([a-z]\w*)", path.read_text())):
        assert os.access(ROOT / "scripts" / name, os.X_OK), name


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_every_command_is_one_that_is_checked_here(name: str, words: list[str]) -> None:
    program = words[0]
    if program == "install" and words[-1].startswith("/etc/"):
        check_installed(words)
    elif program in ("scripts/demo", "scripts/run", "scripts/keygen", "install"):
        return  # the first by a test of its own, the second below by its flags, the others by running them
    elif program == "scripts/test":
        for argument in words[1:]:
            assert argument.startswith("-") or argument == "mask" or (ROOT / argument).exists(), argument
    elif program == "scripts/chat":
        check_chat(words)
    elif program == "scripts/mailbox":
        assert mailbox_arguments(words[1:]).command in MAILBOX_COMMANDS
    elif program == "docker":
        check_docker(words)
    elif program in INSTALL:
        assert words in QUICK_INSTALL
    else:
        pytest.fail(f"{name}: nothing checks {words}")


def check_chat(words: list[str]) -> None:
    """A command of the chat that exists, with flags that it has."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    assert not hasattr(command, "commands"), words
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= flags, words


UNIT = "blindrelay.service"
INSTALL = ("/usr/bin/python3", "/opt/blindrelay/bin/python", "echo", "systemctl", "journalctl")
QUICK_INSTALL = [
    ["/usr/bin/python3", "-m", "venv", "/opt/blindrelay"],
    ["/opt/blindrelay/bin/python", "-m", "pip", "install", "-c", "constraints.txt", "."],
    ["echo", "RELAY_URL=wss://relay.example/ws", ">", "/etc/blindrelay/relay.env"],
    ["systemctl", "enable", "--now", UNIT.removesuffix(".service")],
    ["journalctl", "-u", UNIT.removesuffix(".service")],
    ["systemctl", "reload", "caddy"],
]
"""Steps that need root, systemd and a network; what they rest on is checked."""


def test_the_quick_install_leads_to_the_unit() -> None:
    unit = (ROOT / "deploy" / UNIT).read_text()
    assert "\nExecStart=/opt/blindrelay/bin/blindrelay\n" in unit
    assert "\nEnvironmentFile=-/etc/blindrelay/relay.env\n" in unit
    steps = [words for words in commands("README.md") if words[0] in INSTALL]
    assert steps == QUICK_INSTALL


def check_installed(words: list[str]) -> None:
    """A file of ours goes to a directory, or to a name, of the system; or a directory is made."""
    assert words[1:4] in (["-m", "644", words[3]], ["-d", "-m", "755"], ["-m", "600", "/dev/null"]), words
    assert words[1] == "-d" or words[3] == "/dev/null" or (ROOT / words[3]).is_file(), words


def check_docker(words: list[str]) -> None:
    if words[1] == "build":
        assert words[2:] == ["-t", "blindrelay", "."]
        assert (ROOT / "Dockerfile").is_file()
    elif words[1] == "run":
        check_docker_run(words[2:])
    else:
        assert words[1:] == ["logs", "relay"]


def check_docker_run(words: list[str]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert words[-1] == "blindrelay"
    options = dict(itertools.pairwise(words))
    assert options["--name"] == "relay"
    for option, value in itertools.pairwise(words):
        if option == "-v":
            source, target, *_ = value.split(":")
            # A volume with a name where the keys lie; secrets are mounted from the host.
            assert re.fullmatch(r"[a-z]+", source) if target == "/data" else source.startswith("$PWD/"), value
            assert target != "/data" or re.search("^VOLUME /data$", dockerfile, re.MULTILINE)
        elif option == "-p":
            assert value.rsplit(":", 1)[1] == str(Settings.model_fields["port"].default)
        elif option == "-e":
            assert value.partition("=")[0] in known_variables(), value


def run(words: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    program = str(ROOT / words[0]) if words[0].startswith("scripts/") else words[0]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return subprocess.run(
        [program, *words[1:]],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", ["README.md", "OPERATIONS.md", "SECURITY.md"])
def test_keygen_commands_print_what_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    if name != "SECURITY.md":  # which begins with the old file moved away
        assert run(["scripts/keygen", "--out", "data/relay.keys"], tmp_path).returncode == 0
    told = [
        list(tomllib.loads("\n".join(block.lines))) for block in markdown.blocks(README) if block.language == "toml"
    ]
    tried = 0
    for words in commands(name):
        if words[0] not in ("scripts/keygen", "install") or words[-1].startswith("/etc/"):
            continue
        words = [word.replace("/media/backup", str(tmp_path / "backup")) for word in words]
        done = run(words, tmp_path)
        assert done.returncode == 0, done.stderr
        tried += 1
        if words[0] == "install":
            continue
        printed = tomllib.loads(done.stdout)
        assert re.fullmatch("[0-9a-f]{64}", printed["x25519_public"])
        assert re.fullmatch("[0-9a-f]{64}", printed["ed25519_public"])
        if "--client" in words:
            assert Invite.parse(printed["invite"]).nickname == words[words.index("--nickname") + 1]
        else:
            assert [list(printed)] == told
            card = RelayCard.parse(printed["relay_card"])
            assert card.url == words[words.index("--url") + 1]
            assert card.public.x_pub.hex() == printed["x25519_public"]
        if "--out" in words:
            assert (tmp_path / words[words.index("--out") + 1]).stat().st_mode & 0o777 == 0o600
    assert tried


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    assert run(["scripts/keygen", "--out", "relay.keys"], tmp_path).returncode == 0
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "relay", "--port", "0", "--admin", "off", "--keys", str(tmp_path / "relay.keys")],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def pattern(told: str) -> str:
    """Return a regular expression for a quoted line, in which `…` stands for anything and the port may differ."""
    return re.escape(told).replace("…", ".+").replace("8090", r"\d+")


def test_the_relay_prints_and_logs_what_is_told(relay: subprocess.Popen[str]) -> None:
    assert relay.stdout is not None
    line = relay.stdout.readline().rstrip("\n")
    (told,) = [
        block.lines[0] for block in markdown.blocks(README) if block.language == "text" and "listens" in block.lines[0]
    ]
    assert re.fullmatch(pattern(told), line)
    (told,) = [
        markdown.code(row["line"]) for row in markdown.rows(OPERATIONS, "line", "when") if "listens" in row["line"]
    ]
    assert re.fullmatch(pattern(told), line)
    relay.terminate()
    _, log = relay.communicate(timeout=60)
    assert relay.returncode == 0
    rows = {markdown.code(row["event"]): row["fields"] for row in markdown.rows(OPERATIONS, "event", "level", "fields")}
    seen = [json.loads(line) for line in log.splitlines()]
    assert [entry["event"] for entry in seen] == ["started", "stopping", "stopped"]
    for entry in seen:
        told_fields = set(re.findall(r"`(\w+)`", rows[entry["event"]]))
        assert set(entry) - {"event", "level", "timestamp"} == told_fields


# --- Settings ---------------------------------------------------------------------------------------------------------


def known_variables() -> set[str]:
    limits = {f"RELAY_LIMITS_{name.upper()}" for name in Limits.__dataclass_fields__}
    return (
        {f"RELAY_{name.upper()}" for name in Settings.model_fields if name != "limits"}
        | limits
        | {*SECRETS, TOKEN, *NAMES.file_variables}
    )


def test_what_the_image_sets_is_told() -> None:
    dockerfile = dict(re.findall(r"(RELAY_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    assert f"In the image the relay listens on `{dockerfile['RELAY_HOST']}`" in README
    assert f"its data directory is `{dockerfile['RELAY_DATA_DIR']}`" in README


@pytest.mark.parametrize("path", markdown.documents(), ids=lambda path: path.name)
def test_variables_and_limits_exist(path: Path) -> None:
    text = path.read_text().replace("RELAY_LIMITS_NAME", "").replace("--limits.NAME", "")
    assert set(re.findall(r"\bRELAY_[A-Z0-9_]*[A-Z0-9]\b", text)) <= known_variables()
    flags = {flag.replace("-", "_") for flag in re.findall(r"--limits\.([\w-]+)", text)}
    # These two have the notifier's and the mailbox's.
    theirs: dict[str, Any] = {"push.md": NotifierLimits, "mailbox.md": MailboxLimits}
    assert flags <= set(theirs.get(path.name, Limits).__dataclass_fields__)


def test_variables_with_values_can_be_used() -> None:
    texts = [path.read_text() for path in markdown.documents()]
    found = {(name, value) for text in texts for name, value in re.findall(r"\b(RELAY_\w+)=([^\s`\"]+)", text)}
    environ = {name: value for name, value in found if name not in SECRETS}
    assert len(environ) >= 3
    load([], environ)


def test_flags_of_the_relay_exist() -> None:
    # Not scripts/run itself, which passes its arguments on: it may renew the environment that this test runs in.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "relay", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    flags = set(re.findall(r"--[\w.-]+", done.stdout))
    for name, words in ALL:
        if words[0] == "scripts/run":
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= flags, name
    for path in markdown.documents():
        for told in re.findall(r"`scripts/run (--[\w.-]+)", path.read_text()):
            assert told in flags


# --- Operations -------------------------------------------------------------------------------------------------------


def test_log_events_are_all_told() -> None:
    events = set()
    for path in (ROOT / "relay").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                level, arguments = node.func.attr, node.args
                if level in ("debug", "info", "warning", "error", "exception", "critical") and arguments:
                    assert isinstance(arguments[0], ast.Constant), ast.unparse(node)
                    events.add((str(arguments[0].value), level))
    rows = markdown.rows(OPERATIONS, "event", "level", "fields")
    assert {(markdown.code(row["event"]), row["level"]) for row in rows} == events


def test_every_ending_and_refusal_has_a_cause() -> None:
    endings = [markdown.code(row["ending"]) for row in markdown.rows(OPERATIONS, "ending", "what it tells you")]
    assert endings == [ending.value for ending in Ending]
    rows = markdown.rows(OPERATIONS, "refusal", "what it tells you")
    refusals = [name for row in rows for name in re.findall(r"`(\w+)`", row["refusal"])]
    assert sorted(refusals) == sorted(refusal.value for refusal in Refusal)


def test_every_metric_is_told_with_its_type_and_labels() -> None:
    told = {
        markdown.code(row["metric"]): (row["type"], set(re.findall(r"`(\w+)`", row["labels"])))
        for row in markdown.rows(OPERATIONS, "metric", "type", "labels", "meaning")
    }
    real: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(Exposition(Lab().core).plain()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        kind = "info" if name.endswith("_info") else family.type
        real[name] = (kind, labels)
    # What the system does not tell, on some, is told here all the same.
    assert set(told) - set(real) <= {"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"}
    assert {name: told[name] for name in real} == real


def test_metrics_that_are_named_anywhere_exist() -> None:
    told = {markdown.code(row["metric"]) for row in markdown.rows(OPERATIONS, "metric", "type", "labels", "meaning")}
    parents = markdown.rows(OPERATIONS, "metric of the parent", "type", "labels", "meaning")
    told |= {markdown.code(row["metric of the parent"]) for row in parents}
    for path in markdown.documents():
        # The notifier's are in docs/push.md: see test_push_md.py.
        named = {name for name in re.findall(r"\bblindrelay_\w+", path.read_text()) if "_notifier_" not in name}
        assert named <= told, path.name


def test_every_page_is_told() -> None:
    relay = Lab().core
    told = {
        markdown.code(row["page"]): row["what it says"]
        for row in markdown.rows(OPERATIONS, "page", "what it says", "kept by caches")
    }
    assert set(told) == set(relay.pages.paths)
    assert set(re.findall(r"`(\w+)`", told["/info"])) == set(relay.pages.facts())


def test_quoted_messages_are_those_of_the_code() -> None:
    source = "\n".join(path.read_text() for package in ("keys", "relay") for path in (ROOT / package).glob("*.py"))
    quoted = [
        span
        for row in markdown.rows(OPERATIONS, "symptom", "cause", "what to do")
        for span in re.findall(r"^`([^`]+)`$", row["symptom"])
    ] + [
        markdown.code(span) for row in markdown.rows(OPERATIONS, "line", "when") for span in row["line"].split(" and ")
    ]
    assert len(quoted) >= 7
    for text in quoted:
        for part in re.split(r"…|\d[\d.]+", text):
            wanted = part.strip().removeprefix("blindrelay: ").removesuffix('"').removesuffix(")")
            assert wanted in source, (text, wanted)


# --- Links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", markdown.documents(), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in markdown.links(path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in markdown.anchors(target.read_text()), link


# --- The walk through the code ----------------------------------------------------------------------------------------


def modules() -> dict[str, Any]:
    return {
        f"{package}.{path.stem}": importlib.import_module(f"{package.replace('/', '.')}.{path.stem}")
        for package in ("peers", "peers/store", "peers/carrier", "peers/chat", "keys", "wire", "relay")
        for path in sorted((ROOT / package).glob("*.py"))
        if path.stem not in ("__init__", "__main__")
    }


def test_walkthrough_lists_every_module() -> None:
    rows = markdown.rows(WALKTHROUGH, "file", "what it is for")
    told = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row["file"])]
    real = [
        path.relative_to(ROOT).as_posix()
        for package in ("keys", "wire", "relay")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    ]
    # Of what says itself what it is for.
    assert sorted(told) == sorted(set(real) - {"keys/errors.py", "wire/errors.py"})


def test_walkthrough_lists_every_package_of_peers() -> None:
    told = [row["package"].strip("`/") for row in markdown.rows(WALKTHROUGH, "package", "what it is for")]
    packages = [path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "peers").rglob("__init__.py")]
    assert sorted(told) == sorted(set(packages) - {"peers"})


def test_walkthrough_names_what_there_is() -> None:
    places = modules()
    names: dict[str, Any] = {}
    for name, module in places.items():
        names |= vars(module)
        names[name.rpartition(".")[2]] = module
    for span in set(re.findall(r"`([^`\n]+)`", markdown.without_blocks(WALKTHROUGH))):
        if re.fullmatch(r"[\w/]+\.py", span):
            assert (ROOT / span).is_file(), span
        elif re.fullmatch(r"(?:keys|wire|relay|peers|tests)(?:/\w+)*/", span):
            assert (ROOT / span).is_dir(), span
        elif match := re.fullmatch(r"([A-Za-z]\w*)\.(\w+)", span):
            assert match[1] in names, span
            owner = names[match[1]]
            assert hasattr(owner, match[2]) or match[2] in getattr(owner, "__annotations__", {}), span
        elif re.fullmatch(r"_?[a-z]+(?:_[a-z]+)+", span):
            defined = any(hasattr(place, span) for place in places.values())
            method = any(span in vars(value) for value in names.values() if isinstance(value, type))
            assert defined or method, span
