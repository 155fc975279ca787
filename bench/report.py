"""The figures as people read them: the table on the screen, RESULTS.md, JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.floors import Verdict
from bench.stats import BASE, OURS, Figure


def format_value(value: float | None) -> str:
    """Return a number with three significant digits, thousands set apart."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio to the base."""
    return "–" if ratio is None else f"{ratio:.2f} ×"


def _targets(figures: Sequence[Figure]) -> list[str]:
    names = dict.fromkeys(name for figure in figures for name in figure.values)
    # Ours first and the base last of the two, whatever else there is stands behind.
    return [name for name in (OURS, BASE) if name in names] + [name for name in names if name not in (OURS, BASE)]


def _columns(figures: Sequence[Figure]) -> list[str]:
    columns = ["figure", "unit"]
    for name in _targets(figures):
        columns.append(name)
        if name != BASE:
            columns.append(f"{name} / base")
    return [*columns, "better is", "idle"]


def _row(figure: Figure, names: Sequence[str]) -> list[str]:
    row = [figure.name, figure.unit]
    for name in names:
        row.append(format_value(figure.value(name)))
        if name != BASE:
            row.append(format_ratio(figure.ratio(name)))
    idle = [figure.details.get(name, {}).get("generator_idle") for name in names]
    shares = " ".join("–" if share is None else f"{share:.0%}" for share in idle)
    return [*row, "more" if figure.more_is_better else "less", shares if any(s is not None for s in idle) else ""]


def print_table(console: Console, figures: Sequence[Figure], verdicts: Sequence[Verdict]) -> None:
    """Print the table, the notes, and the floors that do not hold."""
    table = Table(title="figures: medians of interleaved rounds; idle: the generator's own share, for each relay")
    for number, column in enumerate(_columns(figures)):
        table.add_column(column, justify="left" if number < 2 else "right")
    names = _targets(figures)
    for figure in figures:
        better = figure.better(OURS)
        style = None if better is None else "green" if better else "red"
        table.add_row(*_row(figure, names), style=style)
    console.print(table)
    for figure in figures:
        for note in figure.notes:
            console.print(f"{figure.name}: {note}", style="dim", highlight=False)
    for verdict in verdicts:
        if not verdict.holds:
            floor = verdict.floor
            console.print(
                f"BELOW ITS FLOOR: {floor.figure} is {verdict.ratio:.2f} x the base, {floor} is asked: {floor.reason}",
                style="bold red",
            )


def write_json(
    path: Path, figures: Sequence[Figure], machine: Mapping[str, str], verdicts: Sequence[Verdict], command: str
) -> None:
    """Write everything that was measured."""
    content = {
        "machine": dict(machine),
        "command": command,
        "figures": [figure.as_json() for figure in figures],
        "floors": [
            {
                "figure": verdict.floor.figure,
                "bound": str(verdict.floor),
                "ratio": verdict.ratio,
                "holds": verdict.holds,
            }
            for verdict in verdicts
        ],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def markdown(figures: Sequence[Figure], machine: Mapping[str, str], command: str) -> str:
    """Return RESULTS.md."""
    names = _targets(figures)
    lines = [
        "# Results",
        "",
        f"Written by `{command}`; not edited by hand. What each figure means stands in [README.md](README.md).",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in machine.items()),
        "",
        "Medians of interleaved rounds. A ratio is the median of the rounds' own ratios to the base, so it need not be",
        "the quotient of the two medians beside it. *idle* is the generator's own idle share, for each relay.",
        "",
        "| " + " | ".join(_columns(figures)) + " |",
        "|---|---|" + "---:|" * (len(_columns(figures)) - 2),
    ]
    lines += ["| " + " | ".join(_row(figure, names)) + " |" for figure in figures]
    losing = [figure for figure in figures if figure.better(OURS) is False]
    lines += ["", "## Where the base is ahead", ""]
    lines += [
        f"- **{figure.name}**: {format_value(figure.value(OURS))} {figure.unit} against"
        f" {format_value(figure.value(BASE))}, {format_ratio(figure.ratio(OURS))}"
        for figure in losing
    ] or ["In none of these figures."]
    noted = [(figure.name, note) for figure in figures for note in figure.notes]
    if noted:
        lines += ["", "## Notes", "", *(f"- {name}: {note}" for name, note in noted)]
    return "\n".join(lines) + "\n"
