"""Names that last a day."""

import gc
import re

from relay.pseudonyms import Pseudonyms
from tests.wire.pair import Counted

ALICE, BOB = bytes(range(8)), bytes(range(1, 9))
NOON = 20_000 * 86400 + 43200.0


def test_the_same_client_has_the_same_name_all_day_and_others_have_others() -> None:
    names = Pseudonyms(Counted("a"))
    name = names.name(ALICE, NOON - 43200)
    assert re.fullmatch("[a-z2-7]{8}", name)
    assert names.name(BOB, NOON) != name
    assert names.name(ALICE, NOON) == names.name(ALICE, NOON + 43199.9) == name


def test_another_name_on_the_next_utc_day() -> None:
    names = Pseudonyms(Counted("a"))
    today = names.name(ALICE, NOON + 43199)
    assert names.name(ALICE, NOON + 43200) != today


def test_the_key_of_a_day_does_not_come_back_even_if_the_clock_goes_back() -> None:
    names = Pseudonyms(Counted("a"))
    today = names.name(ALICE, NOON)
    names.name(ALICE, NOON + 86400)
    assert names.name(ALICE, NOON) != today


def test_the_old_key_is_gone() -> None:
    keys: list[bytes] = []

    def random(size: int) -> bytes:
        keys.append(bytes([len(keys) + 1]) * size)
        return keys[-1]

    names = Pseudonyms(random)
    names.name(ALICE, NOON)
    names.name(ALICE, NOON + 86400)
    old, new = keys
    assert old != new
    held = [value for value in vars(names).values() if isinstance(value, bytes)]
    assert held == [new]
    assert not [holder for holder in gc.get_referrers(names) if old in vars(names).values()]


def test_another_process_gives_other_names() -> None:
    assert Pseudonyms(Counted("a")).name(ALICE, NOON) != Pseudonyms(Counted("b")).name(ALICE, NOON)
    assert Pseudonyms().name(ALICE, NOON) != Pseudonyms().name(ALICE, NOON)
