"""Figures and what is computed from them. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

BASE = "base"
OURS = "relay"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of all values do not exceed (nearest rank).

    Raises:
        ValueError: no values, or a share out of range.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError("a percentile needs values, and a share from 0 to 1")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(slots=True)
class Figure:
    """One figure of a scenario: its values for each relay, round by round.

    The rounds are interleaved (relay, base, relay, base, …), so the values of one round were measured within seconds of
    each other, and what disturbed the machine disturbed both.

    Attributes:
        name: ``scenario/what``, as floors.toml spells it.
        unit: of the values.
        more_is_better: frames per second are, microseconds are not.
        values: by the relay's name, one per round.
        details: by the relay's name, side figures such as idle shares; medians of their rounds.
        notes: what a reader must know, such as that the generator was the limit.
    """

    name: str
    unit: str
    more_is_better: bool
    values: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def value(self, target: str) -> float | None:
        """Return the median over the rounds, None if this relay was not measured."""
        values = self.values.get(target)
        return median(values) if values else None

    def ratios(self, target: str) -> list[float]:
        """Return the ratio to the base, round by round."""
        return [
            ours / base
            for ours, base in zip(self.values.get(target, ()), self.values.get(BASE, ()), strict=False)
            if base > 0
        ]

    def ratio(self, target: str) -> float | None:
        """Return the median of the rounds' ratios to the base."""
        ratios = self.ratios(target)
        return median(ratios) if ratios else None

    def better(self, target: str) -> bool | None:
        """Tell whether this relay is better than the base."""
        ratio = self.ratio(target)
        return None if ratio is None else (ratio >= 1) == self.more_is_better or ratio == 1

    def add(self, other: "Figure") -> None:
        """Add the rounds and notes of another run of the same scenario."""
        for target, values in other.values.items():
            self.values.setdefault(target, []).extend(values)
        for text in other.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self) -> dict[str, object]:
        """Return the figure as JSON has it, with medians and ratios worked out."""
        return {
            "name": self.name,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "rounds": self.values,
            "median": {target: self.value(target) for target in self.values},
            "ratio_to_base": {target: self.ratio(target) for target in self.values if target != BASE},
            "details": self.details,
            "notes": self.notes,
        }


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each side figure over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: median(one[name] for one in rounds if name in one) for name in names}
