"""The flow against a U-Net that was trained for one direction alone, in the same time, on the same rows.

    python benchmarks/translation/run.py --data emoji --calibrate                 # on an idle machine
    python benchmarks/translation/run.py --data emoji --budget 30m
    python benchmarks/translation/run.py --data emoji --budget 30m --set 'model.favoured={"outline->openmoji": 0.7}'

The flow learns all directions at once, and to make all sources from nothing; only one direction is compared. The U-Net
keeps the weights that did best on validation rows. Both are judged on test rows. A budget is a number of steps, as in
`msvae bench quality`; what is there is not done again, and a flow that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import Judge
from translation.settings import DIRECTIONS, UNET_ROWS, flow_settings
from translation.unet import Training

from msvae.api import run_config
from msvae.benchmarking.calibration import Calibration, calibrate, calibrate_loop
from msvae.benchmarking.machine import circumstances, commit
from msvae.benchmarking.quality import trained_past_gates
from msvae.cli.options import parse_settings
from msvae.cli.output import progress
from msvae.config import FlowConfig, RunConfig, seconds
from msvae.data import load_data
from msvae.files import read_json, write_json
from msvae.models import build_model
from msvae.models.aligned_flow import shares_of
from msvae.networks.precision import flushed_denormals
from msvae.reporting.tables import number

UNHURRIED = 1000  # steps that a measured training seems to have before it
NOTE = """Made by `benchmarks/translation/run.py`, of test rows. The U-Net is trained for one direction alone, and
answers with expected images; the flow learns all directions at once, and to make all sources from nothing
("favoured": its last stage is asked for this direction in most rows, see `model.favoured`): its PSNR and SSIM are
those of expected images, FD112 and retrieval of drawn ones. **right of two**, **right of all**: how often an answer
is more like its own truth than like that of another row (chance .5), or than all others. **spread of draws**: their
standard deviation over the error of the mean of six; 1 where they are as wide as they are wrong. **rows agree**: right
of two, and of all, between the sources of a row that is made from nothing, mean over the pairs."""
COLUMNS = {
    "rows": ("test rows", 0),
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "accuracy": ("right pixels", 3),
    "frechet": ("FD112", 1),
    "pairwise": ("right of two", 3),
    "first": ("right of all", 3),
    "mean_frechet": ("FD112, expected", 1),
    "mean_pairwise": ("right of two, expected", 3),
    "mean_first": ("right of all, expected", 3),
    "spread": ("spread of draws", 2),
    "agreement_pairwise": ("rows agree, of two", 3),
    "agreement_first": ("rows agree, of all", 3),
}


def flow_config(data: str, steps: Mapping[str, int], seed: int, settings: Mapping[str, Any]) -> RunConfig:
    """The flow's settings for a set, with so many steps in every stage."""
    lengths = {"training.steps": sum(steps.values()), "training.stage_steps": dict(steps)}
    fixed = {**flow_settings(data), "training.seed": seed, "training.device": "cpu"}
    return run_config(data, "flow", settings={**fixed, **settings, **lengths})


def name_of(flow: FlowConfig) -> str:
    """What its measured steps are kept under: wider maps are another method, beside that of the usual width."""
    usual = FlowConfig.model_fields["aligned_width"].default
    return "flow" if flow.aligned_width == usual else f"flow, {flow.aligned_width} channels"


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
            + [_cell(row["figures"].get(name), COLUMNS[name][1]) for name in figures]
            for row in shown
        ],
        "circumstances": circumstances(),
    }


def _agrees(known: Any, now: Any) -> bool:
    """Whether what was written down is still so, in everything that it says: settings that came since are not in it."""
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        return all(name in now and _agrees(value, now[name]) for name, value in known.items())
    return known == now


def _refuse_unlike(rows: list[dict[str, Any]], key: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """A row is not replaced without a word; and both sides of a direction have the same images and the same training,
    but for how many rows a batch has."""

    def compared(found: Mapping[str, Any]) -> dict[str, Any]:
        training = {name: value for name, value in found["training"].items() if name != "batch_size"}
        return {"training": training, "data": found.get("data", {})}

    for row in rows:
        if key.items() <= row.items():
            raise SystemExit(f"{path} has {dict(key)} of other settings; replace it (--again), or choose --results.")
        if row["direction"] == key["direction"] and not _agrees(compared(row["settings"]), compared(settings)):
            raise SystemExit(f"{path} has {row['method']} of other images or training settings; choose --results.")


def _cell(value: float | None, digits: int) -> str:
    return number(None if value is None else float(value), digits)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji", choices=sorted(DIRECTIONS))
    parser.add_argument("--given", help="source [of the data's own direction]")
    parser.add_argument("--wanted", help="source [of the data's own direction]")
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--methods", default="flow,unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument(
        "--steps-from", type=Path, help="file of measured steps [RESULTS/calibration-translation-DATA.json]"
    )
    parser.add_argument("--calibrate", action="store_true", help="measure steps alone, and nothing else")
    parser.add_argument("--again", action="store_true", help="test again what is in the table")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the flow's settings")
    arguments = parser.parse_args()
    usual = DIRECTIONS[arguments.data]
    arguments.given, arguments.wanted = arguments.given or usual[0], arguments.wanted or usual[1]
    arguments.methods = arguments.methods.split(",")
    if not set(arguments.methods) <= {"flow", "unet"}:
        parser.error(f"--methods: expected flow, unet or both, got {','.join(arguments.methods)}.")
    return arguments


@flushed_denormals()
def main() -> None:
    arguments = options()
    commit()  # asked for before anything is trained: of these sources, whatever is committed meanwhile
    given, wanted, methods = arguments.given, arguments.wanted, arguments.methods
    budget = seconds(arguments.budget)
    settings = parse_settings(arguments.set)
    measured = arguments.results / f"calibration-translation-{arguments.data}.json"
    calibration = Calibration(arguments.steps_from or measured)
    shape = flow_config(arguments.data, {"sources": 1}, arguments.seed, settings)
    flow = shape.model
    assert isinstance(flow, FlowConfig)
    data = load_data(shape.data)
    source = {s.name: s for s in data.sources}
    unet = f"unet {given}->{wanted}"

    how = {"flow": shape.training, "unet": shape.training.model_copy(update={"batch_size": UNET_ROWS})}

    def training() -> Training:
        return Training(source[given], source[wanted], data.split("train"), how["unet"])

    model = {"flow": flow.model_dump(mode="json"), "unet": None}
    batches = {one.name: one.batch_size(shape.training.batch_size) for one in build_model(data.sources, flow).stages}

    def is_measured(method: str, known: Mapping[str, Any]) -> bool:
        """Whether these are steps of such a model and such batches; steps from a file of one's own may be of others."""
        alike = method == "unet" or arguments.steps_from is not None or known.get("rows") == batches
        return alike and _agrees(known["model"], model[method])

    measured_as = {"flow": name_of(flow), "unet": unet}
    shown_as = {"flow": measured_as["flow"] + (", favoured" if flow.favoured else ""), "unet": "unet"}
    for method in methods:
        known = calibration.entries.get(measured_as[method])
        if not arguments.calibrate and known and is_measured(method, known):
            continue
        if method == "unet":
            facts = {"batch_size": UNET_ROWS, "model": None}
            calibrate_loop(calibration, unet, lambda: partial(training().advance, UNHURRIED), **facts)
        else:
            config_of = partial(flow_config, arguments.data, seed=arguments.seed, settings=settings)
            calibrate(calibration, measured_as[method], config_of)
    if arguments.calibrate:
        return
    path = arguments.results / f"translation-{arguments.data}-{budget:g}s.json"
    content = read_json(path) if path.exists() else {"format_version": 1, "data": arguments.data, "budget": budget}
    rows = content.get("rows", [])
    judge = Judge(data, given, wanted)
    content.setdefault("real", {})[f"{given}->{wanted}"] = judge.real()
    for method in methods:
        shares = shares_of(flow) if method == "flow" and flow.aligned else {}
        steps = calibration.steps(measured_as[method], budget, shares)
        key = {"method": shown_as[method], "direction": f"{given}->{wanted}", "seed": arguments.seed}
        training_settings = how[method].model_dump(mode="json", exclude={"steps", "stage_steps"})
        settings_of = {
            "model": model[method],
            "training": training_settings,
            "data": shape.data.model_dump(mode="json"),
        }
        facts = {"stages": steps, "settings": settings_of}
        told = key | facts
        if not arguments.again and any(_agrees({name: row.get(name) for name in told}, told) for row in rows):
            continue
        replaced = {shown_as[name] for name in methods} if arguments.again else set()
        _refuse_unlike([row for row in rows if row["method"] not in replaced], key, settings_of, path)
        if method == "unet":
            network = training().best_of(steps["training"], data.split("validation"), progress())
            figures, parameters = judge.network(network), network.parameters()
        else:
            config = flow_config(arguments.data, steps, arguments.seed, settings)
            shown = shown_as[method].replace(",", "").replace(" ", "-")
            folder = arguments.runs / path.stem / f"{shown}-seed{arguments.seed}"
            trained = trained_past_gates(config, folder, again=arguments.again, display=progress()).model
            figures, parameters = judge.model(trained, arguments.seed), trained.parameters()
        row = {**key, **facts, "steps": sum(steps.values()), "parameters": sum(p.numel() for p in parameters)}
        row |= {**circumstances(), "figures": figures}
        rows = read_json(path)["rows"] if path.exists() else rows  # others may have added some meanwhile
        rows = [other for other in rows if not key.items() <= other.items()] + [row]
        content |= {"rows": rows, **table_of(arguments.data, budget, content["real"], rows)}
        write_json(path, content)
        print(shown_as[method], figures, flush=True)


if __name__ == "__main__":
    main()
