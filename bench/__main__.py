"""`python -m bench`: run the benchmark."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import field, machine, report
from bench.context import Context
from bench.floors import FLOORS, BadFloors, Floor, Verdict, read_floors
from bench.load.worker import GeneratorFailed
from bench.plot import NoMatplotlib, write_plot
from bench.run import Runs
from bench.scenarios import SCENARIOS
from bench.stats import Figure
from bench.targets import CannotStart, Rival, Starter
from keys.errors import BadInvite
from keys.invite import RelayCard

_IDLE = 10_000
_IDLE_QUICK = 1500
_WIDTH = 150


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the relay, as ratios to a plain relay on the same machine in the same minute.",
    )
    parser.add_argument("--quick", action="store_true", help="about 90 seconds, for the CI")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="one scenario; may be repeated")
    parser.add_argument("--idle", type=int, help=f"idle connections (default {_IDLE:,}; quick {_IDLE_QUICK:,})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the curves (extra: plot)")
    parser.add_argument("--results", type=Path, metavar="FILE.md", help="write the table and the machine as Markdown")
    parser.add_argument("--floors", type=Path, default=FLOORS, metavar="FILE", help="ratios that must be reached")
    parser.add_argument("--no-floors", action="store_true", help="judge nothing")
    parser.add_argument(
        "--rival",
        action="append",
        default=[],
        metavar="CMD|R0…",
        help="another relay to measure: a command ({keys} is a key file for it) or the card of one that runs here",
    )
    parser.add_argument("--card", metavar="R0…", help="measure this relay in the field instead, with a fair load")
    parser.add_argument("--url", help="where the relay of --card is, if not where the card says")
    return parser


def _measure(
    arguments: argparse.Namespace, console: Console, floors: Sequence[Floor]
) -> tuple[list[Figure], list[Verdict]]:
    cores = machine.Cores.share_out()
    if not cores.apart:
        console.print("There is one core: the relays share it with the generator, and no ratio is worth much.")
    rivals = [Rival.parse(text, number) for number, text in enumerate(arguments.rival)]

    def context(tell: Callable[[str], None]) -> Context:
        return Context(
            starter=Starter(cores, rivals),
            cores=cores,
            quick=arguments.quick,
            idle=arguments.idle or (_IDLE_QUICK if arguments.quick else _IDLE),
            rounds=3 if arguments.quick else 5,
            slice=0.5 if arguments.quick else 1.0,
            tell=tell,
        )

    chosen = {name: each for name, each in SCENARIOS.items() if arguments.only is None or name in arguments.only}
    runs = Runs(chosen, context, quick=arguments.quick)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=runs.expected)

        def tell(text: str, done: float) -> None:
            if text and not console.is_terminal:
                console.print(text, highlight=False)
            progress.update(bar, description=text, completed=done)

        runs.run(tell)
        verdicts = runs.judge(floors, tell)
    return runs.figures, verdicts


def _told(arguments: argparse.Namespace) -> str:
    """Return the command as it may stand in a report: what was measured, but no file, address or card."""
    words = ["python", "-m", "bench"]
    if arguments.quick:
        words.append("--quick")
    for name in arguments.only or ():
        words += ["--only", name]
    if arguments.idle:
        words += ["--idle", str(arguments.idle)]
    words += ["--rival", "…"] * len(arguments.rival)
    return " ".join(words + ["--card", "…"] * bool(arguments.card))


def main(words: Sequence[str] | None = None) -> int:
    """Run; returns 0, 1 when a floor is not reached, 2 when something cannot be measured."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.url and not arguments.card:
        parser.error("--url needs the relay's --card too: its keys are pinned")
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    command = _told(arguments)
    about = machine.describe()
    try:
        floors = [] if arguments.no_floors or arguments.card else read_floors(arguments.floors)
        if arguments.card:
            figures = field.measure(RelayCard.parse(arguments.card), arguments.url, console.print)
            verdicts: list[Verdict] = []
        else:
            figures, verdicts = _measure(arguments, console, floors)
        report.print_table(console, figures, verdicts)
        if arguments.json:
            report.write_json(arguments.json, figures, about, verdicts, command)
        if arguments.results:
            arguments.results.write_text(report.markdown(figures, about, command))
        if arguments.plot:
            write_plot(arguments.plot, figures)
    except (
        BadFloors,
        BadInvite,
        CannotStart,
        GeneratorFailed,
        NoMatplotlib,
        OSError,
        SubprocessError,
        ValueError,
    ) as error:
        console.print(f"bench: {error}", style="bold red", highlight=False, markup=False)
        return 2
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
