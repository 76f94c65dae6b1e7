"""A training step of the peer's methods and of ours, in turns in one process, with the same networks and weights.

    python benchmarks/speed.py --stubs FOLDER -o benchmarks/results/speed-peer.json
    python benchmarks/speed.py --stubs FOLDER --cases complete --methods mvtcae --rounds 3    # a trial

Forward, backward and Adam on rows of PolyMNIST's shape (28x28x3), in 32 bits. `benchmarks/losses_against_peer.py` shows
that both sides compute the same loss.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from peer.pairing import Pairing, import_peer, known_methods, pair

from msvae.benchmarking.machine import circumstances
from msvae.benchmarking.speed import random_rows
from msvae.benchmarking.timing import Step, alternating, operations, peak_megabytes, peak_of, ratio
from msvae.files import write_json

COLUMNS = ["case", "peer min", "peer median", "ours min", "ours median", "peer / ours"]
COLUMNS += ["operations peer", "ours", "the networks alone", "peak MB peer", "ours"]
SIDES = ("peer", "ours")
PARTIAL = ("mvae", "mopoe", "mvtcae", "mmvae", "mmvae+")
GROWTH = (2, 5, 8)


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    method: str
    sources: int = 5
    missing: float = 0.0
    samples: int = 1
    rounds: int | None = None  # fewer than the others, for slow ones

    @property
    def is_counted(self) -> bool:
        """The profiler's records of the peer's step through 255 subsets take more than 24 GB."""
        return not (self.method == "mopoe" and self.sources > 5)

    @property
    def label(self) -> str:
        parts = [self.method, f"{self.sources} sources"]
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        parts += [f"K = {self.samples}"] if self.samples > 1 else []
        return ", ".join(parts)


def cases(groups: list[str], methods: list[str]) -> Iterator[Case]:
    """The lines of the wanted groups, each once."""
    found = []
    if "complete" in groups:
        found += [Case(method) for method in methods]
    if "half" in groups:
        found += [Case(method, missing=0.5) for method in methods if method in PARTIAL]
    if "growth" in groups:
        found += [Case(method, sources) for method in methods if method != "jmvae" for sources in GROWTH]
    if "mopoe8" in groups and "mopoe" in methods:
        found.append(Case("mopoe", 8))
    if "k10" in groups and "mmvae" in methods:
        found.append(Case("mmvae", samples=10, rounds=4))
    yield from dict.fromkeys(found)


def steps(case: Case, arguments: argparse.Namespace) -> dict[str, Step]:
    """A step of each side on the same rows, and of their networks without any method."""
    pairing: Pairing = pair(case.method, case.sources, arguments.latent, case.samples)
    batch = random_rows(case.sources, arguments.batch, case.missing)
    return {
        "peer": pairing.peer_step(batch),
        "ours": pairing.our_step(batch),
        "networks": pairing.networks_step(batch),
    }


def peak(case: Case, side: str, arguments: argparse.Namespace) -> float:
    """Peak memory of a fresh process that takes three steps of one side."""
    words = [__file__, "--one", side, "--methods", case.method, "--sources", str(case.sources)]
    words += ["--missing", str(case.missing), "--samples", str(case.samples)]
    words += ["--batch", str(arguments.batch), "--latent", str(arguments.latent), "--threads", str(arguments.threads)]
    words += ["--stubs", str(arguments.stubs)] if arguments.stubs else []
    return peak_of(words)["megabytes"]


def one_side(arguments: argparse.Namespace) -> None:
    """What the fresh process does."""
    case = Case(arguments.methods, arguments.sources, arguments.missing, arguments.samples)
    step = steps(case, arguments)[arguments.one]
    for _ in range(3):
        step()
    print(json.dumps({"megabytes": peak_megabytes()}))


def measured(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of a line; timings are left out with --rounds 0, counts and memory with --no-counts."""
    every = steps(case, arguments)
    figures: dict[str, Any] = {"case": case.label}
    if arguments.rounds:
        timings = alternating({side: every[side] for side in SIDES}, case.rounds or arguments.rounds)
        for side, timing in timings.items():
            figures[side] = {"minimum": timing.minimum, "median": timing.median, "seconds": timing.seconds}
        figures["ratio"] = ratio(timings["peer"], timings["ours"])
        figures["ratio_of_minima"] = timings["peer"].minimum / timings["ours"].minimum
    if not arguments.no_counts:
        if case.is_counted:
            figures["operations"] = {side: operations(step) for side, step in every.items()}
        del every
        figures["peak_megabytes"] = {side: peak(case, side, arguments) for side in SIDES}
    return figures


def line(figures: dict[str, Any]) -> list[str]:
    """The cells of a line: seconds to the millisecond."""

    def cell(*path: str, digits: int = 3) -> str:
        value: Any = figures
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return "–" if value is None else f"{value:.{digits}f}"

    cells = [figures["case"]]
    cells += [cell(side, figure) for side in SIDES for figure in ("minimum", "median")]
    cells.append(cell("ratio", digits=2))
    cells += [cell("operations", side, digits=0) for side in (*SIDES, "networks")]
    return [*cells, *(cell("peak_megabytes", side, digits=0) for side in SIDES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", type=Path, help="folder of stand-ins for what the peer imports")
    parser.add_argument("--cases", default="complete,half,mopoe8,k10,growth")
    parser.add_argument("--methods", default=",".join(known_methods()))
    parser.add_argument("--rounds", type=int, default=12, help="0: operations and memory alone")
    parser.add_argument("--no-counts", action="store_true", help="times alone")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, help="JSON file of the table")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--sources", type=int, default=5, help=argparse.SUPPRESS)
    parser.add_argument("--missing", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    import_peer(arguments.stubs)
    if arguments.one:
        one_side(arguments)
        return
    found = []
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    for case in cases(arguments.cases.split(","), arguments.methods.split(",")):
        found.append(measured(case, arguments))
        print("| " + " | ".join(line(found[-1])) + " |", flush=True)
        if arguments.out:
            write_json(arguments.out, content(found, arguments))


def content(found: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """What `msvae bench table` reads."""
    sources = {figures["case"].split(", ")[1] for figures in found}
    what = "Seconds" if arguments.rounds else "Operations and memory"
    return {
        "format_version": 1,
        "title": ", ".join([f"{what} of a training step, beside the peer", *(sources if len(sources) == 1 else ())]),
        "note": "PyPI `multivae` 1.0.3 and this project in turns in one process, with the same networks, weights and "
        f"rows; {arguments.batch} rows of 3x28x28, latent {arguments.latent}, "
        f"{arguments.rounds or 'no'} rounds, 32 bits. "
        "Our Adam is the fused one, the peer's the default one, as each trains. "
        "The ratio is the median over the rounds. Operations are the profiler's; peaks are of fresh processes. "
        "Differences below 15 % are noise.",
        "columns": COLUMNS,
        "table": [line(figures) for figures in found],
        "measured": found,
        "circumstances": circumstances(),
    }


if __name__ == "__main__":
    main()
