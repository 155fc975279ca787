"""The floors: ratios to the base that must not be lost again. Pure, but for reading the file.

floors.toml holds ``[[floor]]`` tables: `figure` (a name as the table prints it), `at_least` or `at_most` (the ratio to
the base), and `reason`. A floor whose figure was not measured says nothing; one that no scenario knows is a mistake.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.stats import OURS, Figure

FLOORS: Final = Path(__file__).with_name("floors.toml")
_KEYS: Final = {"figure", "at_least", "at_most", "reason"}
_ROUNDS: Final = 3
_NEVER: Final = ("latency p99",)
"""Tails: on a machine that is shared they are made by others."""


class BadFloors(Exception):
    """The file of floors cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Floor:
    """One bound of one figure's ratio to the base."""

    figure: str
    reason: str
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        return f"at least {self.at_least:g} x" if self.at_least is not None else f"at most {self.at_most:g} x"

    def holds(self, ratio: float) -> bool:
        """Tell whether a ratio is within the bound."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a figure stands to its floor."""

    floor: Floor
    ratio: float
    holds: bool


def read_floors(path: Path = FLOORS) -> list[Floor]:
    """Read the file.

    Raises:
        BadFloors: it is not as described above.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFloors(f"{path}: {error}") from None
    if set(content) - {"floor"} or not isinstance(content.get("floor", []), list):
        raise BadFloors(f"{path}: it holds [[floor]] tables and nothing else")
    floors = [_floor(path, table) for table in content.get("floor", [])]
    names = [floor.figure for floor in floors]
    for name in names:
        if names.count(name) > 1:
            raise BadFloors(f"{path}: {name!r} has two floors")
    return floors


def _floor(path: Path, table: object) -> Floor:
    if not isinstance(table, dict) or set(table) - _KEYS:
        raise BadFloors(f"{path}: a floor has {', '.join(sorted(_KEYS))}, not {table!r}")
    figure, reason = table.get("figure"), table.get("reason")
    if not isinstance(figure, str) or not isinstance(reason, str) or not reason.strip():
        raise BadFloors(f"{path}: a floor has a figure and a reason, both texts: {table!r}")
    bounds = [table[key] for key in ("at_least", "at_most") if key in table]
    if len(bounds) != 1 or isinstance(bounds[0], bool) or not isinstance(bounds[0], int | float) or bounds[0] <= 0:
        raise BadFloors(f"{path}: {figure!r} needs at_least or at_most, a ratio above 0")
    if figure.startswith(_NEVER):
        raise BadFloors(f"{path}: {figure!r} is a tail latency, which a floor must not stand on")
    return Floor(figure, reason, table.get("at_least"), table.get("at_most"))


def judge(floors: Sequence[Floor], figures: Sequence[Figure]) -> list[Verdict]:
    """Compare our relay's ratios with the floors.

    Raises:
        BadFloors: a figure was measured in fewer than three interleaved rounds: its median says too little.
    """
    by_name = {figure.name: figure for figure in figures}
    verdicts = []
    for floor in floors:
        figure = by_name.get(floor.figure)
        ratio = figure.ratio(OURS) if figure is not None else None
        if figure is None or ratio is None:
            continue
        if len(figure.ratios(OURS)) < _ROUNDS:
            raise BadFloors(f"{floor.figure!r} was measured in fewer than {_ROUNDS} rounds")
        verdicts.append(Verdict(floor, ratio, floor.holds(ratio)))
    return verdicts
