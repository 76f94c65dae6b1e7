"""The last stage of a trained flow of scenes once more, with other settings: figures of validation rows.

    python benchmarks/translation/last_stage.py RUN --steps 1000 --set model.aligned_width=32

All other stages stay as they are in the run, which is not changed. The direction is the one that the run favours first,
or `--given` and `--wanted`; `others` are the PSNR of every source asked from all others. By the seconds of a step, on a
machine with nothing else to do, settings are compared in equal time.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import Judge

from msvae.cli.options import parse_settings
from msvae.cli.output import progress
from msvae.config import RunConfig, merged, parse
from msvae.data import DataSet
from msvae.models import MultiSourceModel, build_model
from msvae.training.checkpoint import RunFolder
from msvae.training.gates import alignment
from msvae.training.log import MetricsLog
from msvae.training.loop import fit
from msvae.training.opening import Run, open_run

LAST = "alignment"


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--given", help="source [of what the run favours first]")
    parser.add_argument("--wanted", help="source [of what the run favours first]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the run's settings")
    return parser.parse_args()


def with_last_stage(run: Run, data: DataSet, steps: int, settings: dict[str, Any]) -> tuple[MultiSourceModel, float]:
    """The run's model with its last stage trained anew, and the seconds of a step."""
    before = [stage.name for stage in run.model.stages if stage.name != LAST]
    if len(before) == len(run.model.stages):
        raise SystemExit(f"{run.folder.path} has no stage {LAST!r}: it is no flow of scenes.")
    lengths = {"training.stage_steps": {**dict.fromkeys(before, 0), LAST: steps}, "training.steps": steps}
    changed = {**settings, **lengths, "training.budget": None}
    config = parse(RunConfig, merged(run.config.model_dump(mode="json"), dotted=changed))
    model = build_model(data.sources, config.model)
    kept = {name: value for name, value in run.model.state_dict().items() if not name.startswith(f"{LAST}.")}
    try:
        model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise SystemExit(f"These settings change other stages than the last one: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        kept_in = RunFolder(Path(folder) / "run")
        kept_in.create(config, data.sources, {"data": dict(data.card), "own_data": False, "own_networks": []})
        trained = fit(model, data.split("train"), None, config.training, kept_in, display=progress())
        seconds = max(record.get("seconds", 0.0) for record in MetricsLog(kept_in.metrics_log).records())
    return trained, seconds / steps  # of its steps alone, without what comes after them


def others(model: MultiSourceModel, data: DataSet) -> dict[str, float]:
    """PSNR (dB) of expected images of every source given all others, of class maps the share of right pixels."""
    seen = alignment(model, data.split("validation")).figures
    return {name.partition("/")[2]: round(value, 4) for name, value in seen.items() if "/" in name}


def main() -> None:
    arguments = options()
    run = open_run(arguments.run)
    favoured = next(iter(getattr(run.config.model, "favoured", {})), "->").partition("->")
    given, wanted = arguments.given or favoured[0], arguments.wanted or favoured[2]
    if not given or not wanted or "+" in given:
        raise SystemExit("Name one direction: --given SOURCE --wanted SOURCE.")
    data = run.data()
    model, seconds = with_last_stage(run, data, arguments.steps, parse_settings(arguments.set))
    figures = Judge(data, given, wanted, "validation").model(model, run.config.training.seed)
    print({"seconds_per_step": round(seconds, 4), **figures, "others": others(model, data)}, flush=True)


if __name__ == "__main__":
    main()
