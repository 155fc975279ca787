"""The C heap: only that the call is made and taken; what it is worth is measured in bench/."""

import platform

from relay.heap import keep_heap


def test_glibc_listens_and_others_are_left_alone() -> None:
    assert keep_heap() == (platform.libc_ver()[0] == "glibc")
