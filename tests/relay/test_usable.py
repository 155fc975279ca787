"""What the settings name is looked at before a start, and `config check` looks at the same."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import __main__ as start
from relay.__main__ import main
from relay.limits import open_files
from relay.settings import PREFIX, BadSettings, load
from relay.usable import check_usable
from tests.support.certificates import make_certificate

TOKEN = "0123456789abcdef"
Arguments = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in ("XDG_STATE_HOME", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def missing(flag: str) -> Arguments:
    return lambda where: [flag, str(where / "none")]


def mismatched(where: Path) -> list[str]:
    one, other = make_certificate(where, "one"), make_certificate(where, "other")
    return ["--tls-cert", str(one.chain), "--tls-key", str(other.key)]


def open_key(where: Path) -> list[str]:
    files = make_certificate(where)
    files.key.chmod(0o644)
    return ["--tls-cert", str(files.chain), "--tls-key", str(files.key)]


def missing_chain(where: Path) -> list[str]:
    return ["--tls-cert", str(where / "none"), "--tls-key", str(make_certificate(where).key)]


WRONG: list[tuple[Arguments, str]] = [
    (missing("--token-file"), "no token file .*none"),
    (missing("--allow-file"), "cannot read .*none"),
    (missing("--deny-file"), "cannot read .*none"),
    (lambda where: ["--token-file", written(where / "tokens", TOKEN, 0o644)], "chmod 600"),
    (lambda where: ["--token-file", written(where / "tokens", "short\n")], "tokens, line 1"),
    (lambda where: ["--deny-file", written(where / "deny", "Mallory\n")], "deny, line 1"),
    (missing_chain, "cannot read .*none"),
    (mismatched, "other.key is not the key of the certificate in .*one.pem"),
    (open_key, "open to everybody"),
    (lambda _: ["--limits.connections", str(open_files())], "this process may open"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_the_relay_and_the_check_refuse_the_same(
    arguments: Arguments, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path)
    assert main(["config", "check", *given]) == 2
    checked = capsys.readouterr()
    assert re.search(said, checked.err)
    assert checked.out == ""
    assert main(given) == 2
    assert capsys.readouterr().err == checked.err
    assert not (tmp_path / "state").exists(), "no keys are minted by a relay that cannot start"


def test_the_extra_for_the_callout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ["--admission-url", "https://id.example/may"]
    assert main(["config", "check", *given]) == 0
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["config", "check", *given]) == 2
    checked = capsys.readouterr().err
    assert "needs the extra `callout`" in checked
    assert main(given) == 2
    assert capsys.readouterr().err == checked
    assert not (tmp_path / "state").exists()


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    settings = load(
        [word for arguments, _ in (WRONG[0], WRONG[1], WRONG[7], WRONG[9]) for word in arguments(tmp_path)], {}
    )
    with pytest.raises(BadSettings) as caught:
        check_usable(settings)
    assert len(caught.value.problems) == 4


def test_what_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = make_certificate(tmp_path)
    given = ["--tls-cert", str(files.chain), "--tls-key", str(files.key)]
    given += ["--token-file", written(tmp_path / "tokens", TOKEN), "--allow-file", written(tmp_path / "allow", "::/0")]
    admission = check_usable(load(given, {}))
    assert admission.valid(TOKEN)
    assert not admission.valid("another-token-of-16")
    assert main(["config", "check", *given]) == 0
    assert capsys.readouterr().out.endswith("\nok\n")
    assert not (tmp_path / "state").exists()


def test_the_keys_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*_: object) -> None:
        raise AssertionError("keys were looked for, though the relay cannot start")

    monkeypatch.setattr(start, "find_keys", find)
    assert main(["--token-file", str(tmp_path / "none")]) == 2
    assert "no token file" in capsys.readouterr().err
