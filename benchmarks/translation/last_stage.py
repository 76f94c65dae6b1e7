"""The last stage of a trained flow of scenes once more, with other settings: figures of validation rows.

    python benchmarks/translation/last_stage.py RUN --steps 1000 --set model.aligned_width=48

All other stages stay as they are in the run, which is not changed. The direction is the one that the run favours first,
or `--given` and `--wanted`; `others` are the PSNR of every source asked from all others. By the seconds of a step (CPU,
of all threads) settings are compared in equal time.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from translation.judging import Judge

from msvae.cli.options import parse_settings
from msvae.cli.output import progress
from msvae.config import RunConfig, merged, parse
from msvae.data import DataSet
from msvae.metrics import pixel_quality
from msvae.models import MultiSourceModel, build_model
from msvae.training.checkpoint import RunFolder
from msvae.training.loop import fit
from msvae.training.run import Run, open_run

LAST = "alignment"
OTHERS_ROWS = 100


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
    """The run's model with its last stage trained anew, and the CPU seconds of a step."""
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
        began = time.process_time()
        kept_in = RunFolder(Path(folder) / "run")
        kept_in.create(config, data.sources, {"data": dict(data.card), "own_data": False, "own_networks": []})
        trained = fit(model, data.split("train"), None, config.training, kept_in, display=progress())
    return trained, (time.process_time() - began) / steps


def others(model: MultiSourceModel, data: DataSet) -> dict[str, float]:
    """PSNR (dB) of expected images of every source given all others."""
    rows, found = data.split("validation"), {}
    complete = torch.stack(list(rows.present.values())).all(dim=0).nonzero().squeeze(1)
    batch = rows.batch(complete[:OTHERS_ROWS])
    for source in data.sources:
        given = [name for name in batch.names if name != source.name]
        image = model.sample(batch.select(given), [source.name], mode="mean").to("cpu").values[source.name]
        psnr = pixel_quality(image, batch.values[source.name], source).psnr
        if psnr is not None:
            found[source.name] = round(psnr, 2)
    return found


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
