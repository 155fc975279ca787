"""The rules of admission, without connections."""

from pathlib import Path

import pytest

from relay.access import AccessError
from relay.admission import Admission, Verdict, short_reason
from relay.tokens import TokenSource
from tests.relay.harness import identity

ALICE, BOB, CAROL = (identity(number).public.x_pub for number in (1, 2, 3))
HOME, AWAY = bytes((192, 0, 2, 7)), bytes((198, 51, 100, 7))


def listed(path: Path, *entries: str) -> Path:
    path.write_text("\n".join(entries))
    return path


def test_without_rules_everybody_is_welcome() -> None:
    admission = Admission()
    assert not admission.asks_tokens
    assert not admission.lists_addresses
    assert not admission.refuses_address(HOME)
    assert admission.valid("anything")
    assert admission.judge(b"", ALICE) is Verdict.WELCOME


def test_denied_wins_over_allowed(tmp_path: Path) -> None:
    admission = Admission(
        None,
        listed(tmp_path / "allow", ALICE.hex(), BOB[:8].hex(), "192.0.2.0/24"),
        listed(tmp_path / "deny", BOB.hex(), "192.0.2.7"),
    )
    assert admission.refuses_address(HOME)
    assert admission.judge(HOME, ALICE) is Verdict.DENIED
    assert admission.judge(AWAY, ALICE) is Verdict.WELCOME
    assert admission.judge(AWAY, BOB) is Verdict.DENIED
    assert admission.judge(AWAY, CAROL) is Verdict.DENIED
    assert admission.judge(bytes((192, 0, 2, 8)), CAROL) is Verdict.WELCOME


def test_a_list_of_addresses_alone_is_judged_before_the_handshake(tmp_path: Path) -> None:
    admission = Admission(None, listed(tmp_path / "allow", "192.0.2.7"))
    assert not admission.refuses_address(HOME)
    assert admission.refuses_address(AWAY)
    assert admission.refuses_address(b"")  # fails closed where the address is not known
    with_client = Admission(None, listed(tmp_path / "allow", "192.0.2.7", ALICE.hex()))
    assert not with_client.refuses_address(AWAY)


def test_an_empty_list_allows_nobody(tmp_path: Path) -> None:
    admission = Admission(None, listed(tmp_path / "allow", "# nobody yet"))
    assert admission.refuses_address(HOME)
    assert admission.judge(HOME, ALICE) is Verdict.DENIED


def test_reload_takes_all_or_nothing(tmp_path: Path) -> None:
    tokens, deny = tmp_path / "tokens", listed(tmp_path / "deny", ALICE.hex())
    tokens.write_text("the-first-token-1")
    tokens.chmod(0o600)
    admission = Admission(TokenSource(tokens, None), None, deny)
    tokens.write_text("the-second-token")
    listed(deny, BOB.hex(), "nonsense")
    with pytest.raises(AccessError, match="deny, line 2"):
        admission.reload()
    assert admission.valid("the-first-token-1")
    assert admission.judge(HOME, ALICE) is Verdict.DENIED
    listed(deny, BOB.hex())
    admission.reload()
    assert not admission.valid("the-first-token-1")
    assert admission.valid("the-second-token")
    assert admission.judge(HOME, ALICE) is Verdict.WELCOME
    assert admission.judge(HOME, BOB) is Verdict.DENIED


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(AccessError) as caught:
        Admission(TokenSource(None, "x"), tmp_path / "allow", listed(tmp_path / "deny", "?"))
    assert len(str(caught.value).splitlines()) == 3


def test_closing_down_keeps_those_who_are_known(tmp_path: Path) -> None:
    admission = Admission(None, None, listed(tmp_path / "deny", BOB.hex()))
    admission.decommission("We close.", lambda: frozenset((ALICE, BOB)).__contains__)
    assert admission.judge(HOME, ALICE) is Verdict.WELCOME
    assert admission.judge(HOME, BOB) is Verdict.DENIED
    assert admission.judge(HOME, CAROL) is Verdict.DECOMMISSIONED
    # Another notice does not let those in who came meanwhile.
    admission.decommission("We close tomorrow.", lambda: frozenset((CAROL,)).__contains__)
    assert admission.notice == "We close tomorrow."
    assert admission.judge(HOME, CAROL) is Verdict.DECOMMISSIONED
    admission.decommission("", lambda: frozenset().__contains__)
    assert admission.judge(HOME, CAROL) is Verdict.WELCOME


def test_closing_down_with_a_list_keeps_those_on_it(tmp_path: Path) -> None:
    admission = Admission(None, listed(tmp_path / "allow", ALICE.hex()))
    admission.decommission("We close.", lambda: frozenset((CAROL,)).__contains__)
    assert admission.judge(HOME, ALICE) is Verdict.WELCOME
    assert admission.judge(HOME, CAROL) is Verdict.DECOMMISSIONED


def test_a_notice_that_no_client_takes() -> None:
    with pytest.raises(ValueError, match="2001 characters"):
        Admission().decommission("x" * 2001, lambda: frozenset().__contains__)


@pytest.mark.parametrize("text", ["", "short", "x" * 2000, "ж" * 100, "x" + "𝄞" * 40])
def test_a_reason_fits_into_a_close_frame(text: str) -> None:
    reason = short_reason(text)
    assert len(reason.encode()) <= 123
    assert text.startswith(reason)
    assert len(reason.encode()) >= min(120, len(text.encode()))
