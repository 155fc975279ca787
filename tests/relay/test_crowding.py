"""When it is said that one address has most sessions."""

from relay.crowding import EVERY, LEAST, Crowding

ONE, OTHER = bytes((203, 0, 113, 9)), bytes((198, 51, 100, 1))


def test_a_few_of_one_address_are_a_family() -> None:
    crowding = Crowding()
    assert [crowding.joined(ONE, count, 0.0) for count in range(1, LEAST)] == [0] * (LEAST - 1)
    assert crowding.joined(ONE, LEAST, 0.0) == LEAST


def test_half_is_not_most() -> None:
    crowding = Crowding()
    for count in range(1, LEAST):
        crowding.joined(ONE, count, 0.0)
    assert crowding.joined(ONE, 2 * LEAST, 0.0) == 0
    assert crowding.joined(ONE, 2 * LEAST + 1, 0.0) == LEAST + 1


def test_it_is_said_once_an_hour_whoever_it_is() -> None:
    crowding = Crowding()
    said = [crowding.joined(ONE, count, 0.0) for count in range(1, 3 * LEAST)]
    assert sum(map(bool, said)) == 1
    assert crowding.joined(ONE, 3 * LEAST, EVERY - 1) == 0
    assert crowding.joined(ONE, 3 * LEAST + 1, EVERY) == 3 * LEAST + 1
    assert crowding.joined(ONE, 3 * LEAST + 2, EVERY) == 0


def test_those_who_left_do_not_count_and_are_forgotten() -> None:
    crowding = Crowding()
    for _ in range(3):
        for _ in range(LEAST - 1):
            assert crowding.joined(ONE, 1, 0.0) == 0
        assert crowding.joined(OTHER, 1, 0.0) == 0
        assert len(crowding) == 2
        for _ in range(LEAST - 1):
            crowding.left(ONE)
        crowding.left(OTHER)
        assert len(crowding) == 0


def test_nobody_in_particular_is_no_address() -> None:
    crowding = Crowding()
    assert [crowding.joined(b"", count, 0.0) for count in range(1, 200)] == [0] * 199
    crowding.left(b"")
    assert len(crowding) == 0
