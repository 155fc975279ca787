"""When it is said that one address has most sessions."""

from relay.crowding import EVERY, LEAST, Crowding
from relay.guard import Place

ONE, OTHER = bytes((203, 0, 113, 9)), bytes((198, 51, 100, 1))


def test_a_few_of_one_address_are_a_family() -> None:
    crowding, one = Crowding(), Place(ONE)
    assert [crowding.joined(one, count, 0.0) for count in range(1, LEAST)] == [0] * (LEAST - 1)
    assert crowding.joined(one, LEAST, 0.0) == LEAST


def test_half_is_not_most() -> None:
    crowding, one = Crowding(), Place(ONE)
    for count in range(1, LEAST):
        crowding.joined(one, count, 0.0)
    assert crowding.joined(one, 2 * LEAST, 0.0) == 0
    assert crowding.joined(one, 2 * LEAST + 1, 0.0) == LEAST + 1


def test_it_is_said_once_an_hour_whoever_it_is() -> None:
    crowding, one = Crowding(), Place(ONE)
    said = [crowding.joined(one, count, 0.0) for count in range(1, 3 * LEAST)]
    assert sum(map(bool, said)) == 1
    assert crowding.joined(one, 3 * LEAST, EVERY - 1) == 0
    assert crowding.joined(one, 3 * LEAST + 1, EVERY) == 3 * LEAST + 1
    assert crowding.joined(one, 3 * LEAST + 2, EVERY) == 0


def test_those_who_left_do_not_count() -> None:
    crowding, one, other = Crowding(), Place(ONE), Place(OTHER)
    for _ in range(3):
        for _ in range(LEAST - 1):
            assert crowding.joined(one, 1, 0.0) == 0
        assert crowding.joined(other, 1, 0.0) == 0
        for _ in range(LEAST - 1):
            crowding.left(one)
        crowding.left(other)
        assert (one.sessions, other.sessions) == (0, 0)


def test_nobody_in_particular_is_no_address() -> None:
    crowding, nobody = Crowding(), Place(b"")
    assert [crowding.joined(nobody, count, 0.0) for count in range(1, 200)] == [0] * 199
