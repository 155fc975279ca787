"""The program's commands and settings: what they print, what they refuse, and with which exit status."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from keys.identity import Identity
from keys.invite import Invite, MailboxCard, RelayCard
from peers.mailbox import __main__ as program
from peers.mailbox.access import new_token, read_access, read_recipients, read_tokens, revoke_token
from peers.mailbox.keyfile import KEY_FILE, mint, read_mailbox_identity
from peers.mailbox.rules import Limits, Refused
from peers.mailbox.settings import NAMES, Settings, database_of, load
from peers.mailbox.settings_limits import LimitSettings
from peers.mailbox.sqlite_store import SqliteStore
from peers.service.errors import BadSettings, ServiceError
from peers.service.settings_sources import flag_of, is_secret
from tests.peers.mailbox.lab import ALICE, BOB, Box, asked, check_sums
from tests.support.clients import run_async
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RELAY = RelayCard(Identity(b"r" * 32, b"R" * 32).public, "wss://relay.example/ws")
URL = "https://mailbox.example"
BOTH = {"relay": RELAY.text, "http": "127.0.0.1:0", "http_url": URL}


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """A command that sets up logging does so for this process, to a stream that ends with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("BLINDRELAY_MAILBOX_"):
            monkeypatch.delenv(name)
    directory = tmp_path / "box"
    monkeypatch.setenv("BLINDRELAY_MAILBOX_DATA_DIR", str(directory))
    return directory


def flags(**settings: str) -> list[str]:
    return [word for key, value in settings.items() for word in (flag_of(key), value)]


def settings(home: Path, **given: Any) -> Settings:
    return load({"data_dir": str(home), **given}, {}).settings


# --- Keys and cards ---------------------------------------------------------------------------------------------------


def test_keygen_makes_keys_once_and_prints_the_cards(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["keygen", *flags(**BOTH)]) == 0
    out, err = capsys.readouterr()
    cards = [MailboxCard.parse(line) for line in out.splitlines()]
    assert [card.url for card in cards] == [RELAY.url, URL]
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert "wrote" in err
    assert {card.public for card in cards} == {read_mailbox_identity(home).public}
    for command in ("keygen", "card"):
        assert program.main([command, *flags(**BOTH)]) == 0
        assert capsys.readouterr() == (out, "")


def test_without_keys_or_a_way(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["keygen"]) == 2
    assert "nobody could reach it: set relay (BLINDRELAY_MAILBOX_RELAY)" in capsys.readouterr().err
    assert not home.exists()
    assert program.main(["card", *flags(**BOTH)]) == 2
    assert "`blindrelay-mailbox keygen` makes it" in capsys.readouterr().err
    mint(home)
    for command in (["card"], ["run"], ["config", "check"]):
        assert program.main(command) == 2
        assert "nobody could reach it: set relay (BLINDRELAY_MAILBOX_RELAY)" in capsys.readouterr().err


def test_the_relays_own_keys_are_not_the_mailboxs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    same = RelayCard(read_mailbox_identity(home).public, RELAY.url).text
    assert program.main(["run", "--relay", same]) == 2
    assert "the relay's own keys" in capsys.readouterr().err


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_core_and_can_all_be_set(home: Path) -> None:
    assert LimitSettings().rules() == Limits()
    told: dict[str, float] = {}
    for key, _ in NAMES.leaves():
        table, _, name = key.rpartition(".")
        if table == "limits":
            value = getattr(LimitSettings(), name)
            told[name] = value - 1 if value > 1 else value
    # Each changed by one, and each change arrives where it belongs.
    changed = LimitSettings(**told)  # type: ignore[arg-type]
    rules, before = changed.rules(), Limits()
    same = [name for name in rules.__dataclass_fields__ if getattr(rules, name) == getattr(before, name)]
    assert same == []
    assert (rules.prices.base, rules.prices.most, rules.prices.busy) == (0, 21, 599)
    assert settings(home, **{"limits.ttl": "7200"}).limits.rules().ttl == 7_200_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"http": "127.0.0.1:1"}, "http takes http_url as well"),
        ({"http_url": URL}, "http is off"),
        ({"http": "8095", "http_url": URL}, "an address and a port"),
        ({"http": "127.0.0.1:1", "http_url": "wss://x.example"}, "must begin with http"),
        ({"http": "127.0.0.1:1", "http_url": f"{URL}?a=b"}, "has a query"),
        ({"trusted_proxies": "here"}, "is no network"),
        ({"relay": "M0abc"}, "mailbox card, not a relay card"),
        ({"limits.ttl": "9999999"}, "not above the longest"),
        ({"limits.item_bytes": "1"}, "1024 to 262144"),
        ({"limits.price_base": "25"}, "the lowest is not above the highest"),
        ({"limits.request": "0"}, "greater than 0"),
        ({"relay_token": "short"}, "admission token"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_name(home: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(said)):
        settings(home, **given)


def test_values_that_contradict_each_other_are_told_with_their_places(home: Path) -> None:
    home.mkdir()
    (home / "mailbox.toml").write_text("[limits]\nprice_most = 3\nttl_max = 60\n[nats]\nreplicas = 2\n")
    price = "BLINDRELAY_MAILBOX_LIMITS_PRICE_BASE"
    environ = {"BLINDRELAY_MAILBOX_DATA_DIR": str(home), price: "4"}
    with pytest.raises(BadSettings) as told:
        load({}, environ)
    assert str(told.value).splitlines() == [
        f"limits.price_base ({price}), limits.price_most ({home}/mailbox.toml): "
        "prices go from 0 to 30 bits, and the lowest is not above the highest",
        f"nats.replicas ({home}/mailbox.toml): 1, 3 or 5",
    ]
    with pytest.raises(BadSettings, match=r"^limits\.ttl, limits\.ttl_max \(.*mailbox\.toml\): the usual ttl"):
        load({"limits.price_base": "3", "nats.replicas": "1"}, environ)
    with pytest.raises(BadSettings, match=r"^nats\.certificate, nats\.key \(--nats\.key\): both or none$"):
        load({"limits.price_base": "3", "nats.replicas": "1", "limits.ttl": "60", "nats.key": "k"}, environ)


def test_variables_files_and_flags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    (home / "mailbox.toml").write_text(
        f'relay = "{RELAY.text}"\nlog_level = "error"\n[limits]\nttl = 100\nlease = 70\n'
    )
    secret = home / "token"
    secret.write_text("s" * 40)
    environ = {
        "BLINDRELAY_MAILBOX_DATA_DIR": str(home),
        "BLINDRELAY_MAILBOX_LIMITS_TTL": "200",
        "BLINDRELAY_MAILBOX_LIMITS_LEASE": "80",
        "BLINDRELAY_MAILBOX_RELAY_TOKEN_FILE": str(secret),
    }
    loaded = load({"limits.lease": "90"}, environ)
    assert (loaded.settings.limits.ttl, loaded.settings.limits.lease) == (200, 90)
    assert loaded.settings.relay == RELAY.text
    with pytest.raises(BadSettings, match="did you mean BLINDRELAY_MAILBOX_LIMITS_TTL_MAX"):
        load({}, environ | {"BLINDRELAY_MAILBOX_LIMITS_TTL_MAXX": "1"})
    with pytest.raises(BadSettings, match=r"did you mean limits\.lease"):
        (home / "mailbox.toml").write_text("[limits]\nleases = 1\n")
        load({}, environ)


def test_show_can_be_read_again_and_shows_no_secret(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLINDRELAY_MAILBOX_RELAY_TOKEN", "s" * 40)
    assert program.main(["config", "show", *flags(**BOTH), "--limits.ttl", "77"]) == 0
    out = capsys.readouterr().out
    assert "ttl = 77  # --limits.ttl" in out
    assert "s" * 40 not in out
    assert "relay_token: hidden  # BLINDRELAY_MAILBOX_RELAY_TOKEN" in out
    values = tomllib.loads(out)
    assert values["http_url"] == URL
    path = home.parent / "again.toml"
    path.write_text(out)
    assert load({"config": str(path)}, {}).settings.limits.ttl == 77


def test_the_template_names_all_and_sets_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["config", "template"]) == 0
    out = capsys.readouterr().out
    assert tomllib.loads(out) == {"limits": {}, "nats": {}}
    named = set(re.findall(r"^#(\w+) = ", out, re.MULTILINE))
    expected = {key.rpartition(".")[2] for key, info in NAMES.leaves() if not is_secret(info)} - {"config"}
    assert named == expected
    # Its defaults are those of the code.
    limits = out.partition("[limits]")[2]
    values = tomllib.loads("\n".join(line[1:] for line in limits.splitlines() if re.match(r"#\w+ = ", line)))
    assert LimitSettings(**values) == LimitSettings()


def test_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    assert program.main(["config", "check", *flags(**BOTH)]) == 0
    assert capsys.readouterr().out == "ways: relay, http\nserves: everybody\nok\n"
    assert program.main(["config", "check", *flags(**BOTH), "--tokens"]) == 2
    assert "make one by `blindrelay-mailbox token new`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["run", "--htpp", "x"], ["run", "secret"], ["token"], ["backup"], []]
)
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--help" in err
    assert "secret" not in err


# --- Tokens and recipients --------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_known_by_its_digest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["token", "new", "alice's phone"]) == 2  # an apostrophe
    assert program.main(["token", "new", "phone of alice"]) == 0
    token = capsys.readouterr().out.strip()
    assert len(token) == 32
    for path in home.iterdir():
        assert token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert program.main(["token", "new"]) == 0
    capsys.readouterr()
    assert program.main(["token", "list"]) == 0
    out = capsys.readouterr().out
    assert token not in out
    (first, second) = out.splitlines()
    name, _, label = first.partition(" ")
    assert label == "phone of alice"
    rule = read_access(settings(home, tokens=True))
    rule.check(BOB.public.x_pub, token.encode())
    for wrong in (b"", token.encode()[:-1], b"x" * 32):
        with pytest.raises(Refused):
            rule.check(BOB.public.x_pub, wrong)
    assert program.main(["token", "revoke", name]) == 0
    with pytest.raises(Refused):
        read_access(settings(home, tokens=True)).check(BOB.public.x_pub, token.encode())
    assert program.main(["token", "revoke", name]) == 1
    assert program.main(["token", "revoke", second]) == 0
    with pytest.raises(BadSettings, match="there is none yet"):
        read_access(settings(home, tokens=True))


def test_tokens_that_cannot_be_used(home: Path) -> None:
    for _ in range(100):
        new_token(home, "x" * 64)
    assert len(read_tokens(home)) == 100  # and the file can still be read
    with pytest.raises(ServiceError, match="revoke some"):
        new_token(home, "")
    assert revoke_token(home, "") is None
    assert revoke_token(home, read_tokens(home)[0].digest.hex()) is not None
    (home / "mailbox.tokens").write_text("abc label\n")
    with pytest.raises(Exception, match="line 1") as told:
        read_tokens(home)
    assert "abc" not in str(told.value)


def test_recipients(tmp_path: Path) -> None:
    path = tmp_path / "served"
    path.write_text(f"# us\n\n{Invite(ALICE.public, 'alice').text}  # alice\n{BOB.public.x_pub.hex().upper()}\n")
    assert read_recipients(path) == {ALICE.public.x_pub, BOB.public.x_pub}
    path.write_text(f"{BOB.public.x_pub.hex()}\nK0broken\n{'00' * 32}\nwho\n")
    with pytest.raises(BadSettings) as told:
        read_recipients(path)
    assert str(told.value).splitlines() == [
        f"recipients: line 2 of {path} begins as an invite and is none that can be used: "
        "an invite that is cut short: copy the whole of it",
        f"recipients: line 3 of {path} has 64 hex digits that can be nobody's key: copy it again",
        f"recipients: line 4 of {path} is neither an invite K0… nor a key of 64 hex digits",
    ]
    assert "broken" not in str(told.value)
    with pytest.raises(BadSettings, match="cannot read"):
        read_recipients(tmp_path / "missing")


# --- What it holds ----------------------------------------------------------------------------------------------------


async def fill(home: Path, count: int) -> None:
    async with Box(database_of(settings(home))) as box:
        for number in range(count):
            await box.deposit(asked(number, ttl=3600))


def test_stats_backup_and_prune(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["stats"]) == 2
    assert "makes it when it runs" in capsys.readouterr().err
    mint(home)
    asyncio.run(fill(home, 5))
    assert program.main(["stats"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("items: 5\nbytes: 5120\nrecipients: 1\nwith_refusals: 0\nfile_bytes: ")
    copy = home.parent / "copy.db"
    assert program.main(["backup", str(copy)]) == 0
    check_sums(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert program.main(["backup", str(copy)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    # By the mailbox's own time nothing has ended, whatever the machine's clock says.
    assert program.main(["prune"]) == 0
    assert "erased: 0\n" in capsys.readouterr().out

    async def later() -> None:
        store = await SqliteStore.open(database_of(settings(home)), Limits())
        await store.save_time((await store.saved_time() or 0) + 3 * 3_600_000)
        await store.close()

    asyncio.run(later())
    assert program.main(["prune"]) == 0
    assert "erased: 5\n" in capsys.readouterr().out
    check_sums(database_of(settings(home)))


@run_async
async def test_beside_a_mailbox_that_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(mint, home)
    async with Box(database_of(settings(home))) as box:
        await box.deposit(asked(1))
        assert await asyncio.to_thread(program.main, ["stats"]) == 0
        assert "items: 1\n" in capsys.readouterr().out
        assert await asyncio.to_thread(program.main, ["prune"]) == 1
        assert "end it first" in capsys.readouterr().err
        assert await asyncio.to_thread(program.main, ["backup", str(home.parent / "copy.db")]) == 0
        await box.deposit(asked(2))


def test_another_programs_database(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    database_of(settings(home)).write_bytes(b"x" * 5000)
    assert program.main(["stats"]) == 1
    assert "SQLITE_NOTADB" in capsys.readouterr().err


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["health", "--admin", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().out == "the mailbox does not answer\n"
    assert program.main(["health", "--admin", "off"]) == 2


def test_without_its_extra_it_says_so(home: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from peers.mailbox.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    mint(home)
    command = [sys.executable, "-c", code, "run", *flags(**BOTH)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "'.[mailbox]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not json.dumps(done.stdout).count("M0")
