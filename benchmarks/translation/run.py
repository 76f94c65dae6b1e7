"""The flow against a U-Net that was trained for one direction alone, in the same time, on the same rows.

    python benchmarks/translation/run.py --data emoji --calibrate                 # on an idle machine
    python benchmarks/translation/run.py --data emoji --budget 30m

The flow learns all directions at once, and to make all sources from nothing; only one direction is compared. The U-Net
keeps the weights that did best on validation rows. Both are judged on test rows. A budget is a number of steps, as in
`msvae bench quality`; what is there is not done again, and a flow that was stopped goes on.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import Judge
from translation.settings import DIRECTIONS, flow_settings
from translation.unet import Training

from msvae.api import run_config
from msvae.benchmarking.calibration import Calibration, calibrate
from msvae.benchmarking.machine import circumstances
from msvae.cli.options import parse_settings
from msvae.config import RunConfig, seconds
from msvae.data import load_data
from msvae.reporting.tables import number
from msvae.training.checkpoint import RunFolder
from msvae.training.files import read_json, write_json
from msvae.training.run import Run, open_run, resume_run, train_run

WINDOW, WINDOWS, REPEATS = 5, 4, 3
NOTE = """Made by `benchmarks/translation/run.py`, of test rows. The U-Net is trained for one direction alone, and
answers with expected images; the flow learns all directions at once, and to make all sources from nothing: its PSNR and
SSIM are those of expected images, FD112 and retrieval of drawn ones. **right of two**, **right of all**: how often
an answer is more like its own truth than like that of another row (chance .5), or than all others. **rows agree**: the
same between the sources of a row that is made from nothing, mean over the pairs."""
COLUMNS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "accuracy": ("right pixels", 3),
    "frechet": ("FD112", 1),
    "pairwise": ("right of two", 3),
    "first": ("right of all", 3),
    "mean_frechet": ("FD112, expected", 1),
    "mean_pairwise": ("right of two, expected", 3),
    "mean_first": ("right of all, expected", 3),
    "agreement_pairwise": ("rows agree, of two", 3),
    "agreement_first": ("rows agree, of all", 3),
}


def flow_config(data: str, steps: Mapping[str, int], seed: int, settings: Mapping[str, Any]) -> RunConfig:
    """The flow's settings for a set, with so many steps in every stage."""
    lengths = {"training.steps": sum(steps.values()), "training.stage_steps": dict(steps)}
    return run_config(data, "flow", settings={**flow_settings(data), "training.seed": seed, **settings, **lengths})


def calibrate_unet(calibration: Calibration, name: str, training: Any) -> None:
    """Seconds of a step, of short runs in windows, the fastest repeat of each window."""
    repeats = []
    for _ in range(REPEATS):
        short = training()
        for _ in range(WINDOW):
            short.advance(1000)
        windows = [sum(short.advance(1000) for _ in range(WINDOW)) / WINDOW for _ in range(WINDOWS)]
        repeats.append({"training": windows})
    calibration.record(name, repeats, batch_size=short.config.batch_size)


def trained_flow(config: RunConfig, folder: Path) -> Run:
    """The run of these settings: opened, resumed or trained."""
    stored = RunFolder(folder)
    if not stored.checkpoints():
        shutil.rmtree(folder, ignore_errors=True)
        return train_run(config, folder)
    return open_run(folder) if stored.state().finished else resume_run(folder)


def table_of(data: str, budget: float, real: Mapping[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page of benchmarks shows."""
    shown = [*rows, *({"method": "*real rows*", "direction": name, "figures": seen} for name, seen in real.items())]
    figures = [name for name in COLUMNS if any(name in row["figures"] for row in shown)]
    return {
        "title": f"{data}, one source into another, {budget:g} s of training",
        "note": NOTE,
        "columns": ["direction", "method", "seed", "steps", *(COLUMNS[name][0] for name in figures)],
        "table": [
            [row["direction"], row["method"], str(row.get("seed", "")), str(row.get("steps", ""))]
            + [number(row["figures"].get(name), COLUMNS[name][1]) for name in figures]
            for row in shown
        ],
        "circumstances": circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji", choices=sorted(DIRECTIONS))
    parser.add_argument("--given", help="source [of the data's own direction]")
    parser.add_argument("--wanted", help="source [of the data's own direction]")
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--methods", default="flow,unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--steps-from", type=Path, help="file of measured steps [RESULTS/calibration-DATA.json]")
    parser.add_argument("--calibrate", action="store_true", help="measure steps alone, and nothing else")
    parser.add_argument("--again", action="store_true", help="test again what is in the table")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the flow's settings")
    arguments = parser.parse_args()
    given, wanted = arguments.given or DIRECTIONS[arguments.data][0], arguments.wanted or DIRECTIONS[arguments.data][1]
    budget = seconds(arguments.budget)
    settings = parse_settings(arguments.set)
    calibration = Calibration(arguments.steps_from or arguments.results / f"calibration-{arguments.data}.json")
    shape = flow_config(arguments.data, {"sources": 1}, arguments.seed, settings)
    data = load_data(shape.data)
    source = {s.name: s for s in data.sources}
    unet = f"unet {given}->{wanted}"

    def training() -> Training:
        return Training(source[given], source[wanted], data.split("train"), shape.training)

    for method in arguments.methods.split(","):
        name = unet if method == "unet" else "flow"
        if arguments.calibrate or name not in calibration.entries:
            if method == "unet":
                calibrate_unet(calibration, unet, training)
            else:
                calibrate(calibration, "flow", lambda s: flow_config(arguments.data, s, arguments.seed, settings))
    if arguments.calibrate:
        return
    path = arguments.results / f"translation-{arguments.data}-{budget:g}s.json"
    content = read_json(path) if path.exists() else {"format_version": 1, "data": arguments.data, "budget": budget}
    rows = content.get("rows", [])
    judge = Judge(data, given, wanted)
    content.setdefault("real", {})[f"{given}->{wanted}"] = judge.real()
    for method in arguments.methods.split(","):
        key = {"method": method, "direction": f"{given}->{wanted}", "seed": arguments.seed}
        if not arguments.again and any(key.items() <= row.items() for row in rows):
            continue
        steps = calibration.steps(unet if method == "unet" else "flow", budget)
        if method == "unet":
            network = training().best_of(steps["training"], data.split("validation"))
            figures = judge.network(network)
            parameters = sum(p.numel() for p in network.parameters())
        else:
            folder = arguments.runs / path.stem / f"flow-seed{arguments.seed}"
            model = trained_flow(flow_config(arguments.data, steps, arguments.seed, settings), folder).model
            figures = judge.model(model, arguments.seed)
            parameters = sum(p.numel() for p in model.parameters())
        row = {**key, "steps": sum(steps.values()), "parameters": parameters, **circumstances(), "figures": figures}
        rows = [other for other in rows if not key.items() <= other.items()] + [row]
        content |= {"rows": rows, **table_of(arguments.data, budget, content["real"], rows)}
        write_json(path, content)
        print(method, figures, flush=True)


if __name__ == "__main__":
    main()
