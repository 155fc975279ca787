"""The curves: throughput over frames in flight, and latency by percentile. Needs the extra `plot`."""

import re
from collections.abc import Sequence
from pathlib import Path

from bench.stats import Figure

_THROUGHPUT = re.compile(r"throughput/(\S+ \S+) x (\d+) pairs, (\d+) in flight")
_LATENCY = re.compile(r"latency (p[\d.]+)/(.*)")


class NoMatplotlib(Exception):
    """The extra `plot` is not installed."""


def curves(figures: Sequence[Figure]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return the points of each curve, by panel and label; a panel without points is left out. Pure."""
    panels: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for figure in figures:
        throughput, latency = _THROUGHPUT.fullmatch(figure.name), _LATENCY.fullmatch(figure.name)
        if throughput is not None:
            size, pairs, point = throughput.groups()
            panel, series = f"frames/s, {pairs} pairs", size
        elif latency is not None:
            point, series = latency.groups()
            panel = f"round trip at {series}, µs"
            series = ""
        else:
            continue
        for target in figure.values:
            value = figure.value(target)
            if value is not None:
                label = f"{target}, {series}" if series else target
                panels.setdefault(panel, {}).setdefault(label, []).append((point, value))
    return panels


def write_plot(path: Path, figures: Sequence[Figure]) -> None:
    """Draw the curves into a file.

    Raises:
        NoMatplotlib: the extra is missing.
        ValueError: no figure has a curve, or the file's kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise NoMatplotlib("--plot needs matplotlib: pip install -e '.[plot]'") from None
    panels = curves(figures)
    if not panels:
        raise ValueError("neither throughput nor latency was measured: there is nothing to draw")
    canvas = Canvas(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    FigureCanvasAgg(canvas)
    for number, (title, series) in enumerate(panels.items()):
        axes = canvas.add_subplot(1, len(panels), number + 1)
        for label, points in series.items():
            axes.plot(
                [name for name, _ in points],
                [value for _, value in points],
                marker="o",
                linestyle="--" if label.startswith("base") else "-",
                label=label,
            )
        axes.set_title(title)
        axes.set_xlabel("percentile" if title.startswith("round trip") else "frames in flight for each pair")
        axes.set_yscale("log")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    canvas.savefig(path, dpi=120)
