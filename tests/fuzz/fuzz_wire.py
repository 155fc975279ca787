"""Fuzz `wire` with atheris. The one invariant: ANY BYTES GIVE A VALUE OR A WireError.

Endless, from the root of the project, with the `fuzz` extra installed:

    python -m tests.fuzz.fuzz_wire [a directory for the corpus] [options of libFuzzer]
"""

import sys

import atheris

with atheris.instrument_imports(include=["wire", "keys"]):
    from tests.fuzz.wire_doors import DOORS, MAX_PAYLOAD, one_input

NAMES = list(DOORS)


def one_buffer(data: bytes) -> None:
    """Take a payload, the number and the door, from the end: FuzzedDataProvider draws integers there."""
    provider = atheris.FuzzedDataProvider(data)
    door = NAMES[provider.ConsumeIntInRange(0, len(NAMES) - 1)]
    number = provider.ConsumeIntInRange(0, 0xFF)
    one_input(door, number, provider.ConsumeBytes(MAX_PAYLOAD))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_buffer)
    atheris.Fuzz()
