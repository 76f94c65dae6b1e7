"""What each part of the flow is for: rows of a table in which one part is changed, all else equal.

    python benchmarks/ablations.py --data polymnist --budget 3m
    python benchmarks/ablations.py --data polymnist --budget 3m --only "whole,no grain"
    python benchmarks/ablations.py --data polymnist --budget 10m --missing 0.5 --only "whole,no self-distillation"

Every stage takes as many steps as it does in the whole model (see `msvae bench calibrate`), but for parts whose steps
cost something else: these are measured when they are needed, best on an idle machine. All take over the autoencoders of
the whole model, so that rows differ by the part alone; what only changes how answers are drawn is asked of the whole
model, without training. A row is kept at once; what is there is not done again.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msvae.benchmarking.calibration import Calibration, calibrate
from msvae.benchmarking.quality import (
    Comparison,
    comparison_data,
    comparison_yardstick,
    facts_of,
    judge,
    trained_past_gates,
)
from msvae.benchmarking.results import Terms
from msvae.benchmarking.settings import compared_config
from msvae.cli.output import progress
from msvae.config import SAMPLING_SETTINGS, RunConfig, seconds
from msvae.errors import ConfigError, unknown
from msvae.training.progress import Display

WHOLE = "whole"


@dataclass(frozen=True)
class Ablation:
    """One part changed.

    Args:
        settings: of the model.
        own_cost: whether a step of it takes another time than one of the whole model.
    """

    settings: Mapping[str, Any]
    own_cost: bool = False

    @property
    def dotted(self) -> dict[str, Any]:
        return {f"model.{name}": value for name, value in self.settings.items()}

    @property
    def only_drawn(self) -> bool:
        """Whether the whole model, as it is trained, answers it."""
        return set(self.settings) <= set(SAMPLING_SETTINGS)


ABLATIONS: dict[str, Ablation] = {
    WHOLE: Ablation({}),
    # the shared code
    "no contrast (InfoNCE)": Ablation({"contrast": 0.0}),
    "no prediction": Ablation({"prediction": 0.0}),
    "prediction not detached": Ablation({"detached": False}),
    "code of 8 numbers": Ablation({"code": 8}),
    "code of 128 numbers": Ablation({"code": 128}),
    # the flows
    "no self-distillation": Ablation({"self_distillation": False}),
    "renderer never sees drawn codes": Ablation({"sampled": 0.0}),
    "Gaussian product for the converter": Ablation({"converter": "product", "sampler": "none"}),
    "converter alone": Ablation({"sampler": "none"}),
    "plain decoder for the renderer": Ablation({"renderer": "mean"}),
    "Transformer for the renderer's MLP": Ablation({"patch": 1}, own_cost=True),
    # the autoencoders
    "no grain": Ablation({"grain": False}),
    # how answers are drawn
    "closed form of the mixture": Ablation({"codes_by": "mixture"}),
    "guidance 1": Ablation({"guidance": 1.0}),
    "evidence 1": Ablation({"evidence": 1.0}),
    "no redraws": Ablation({"redraws": 0}),
    "neither guided nor redrawn": Ablation({"guidance": 1.0, "evidence": 1.0, "redraws": 0}),
    "8 steps of the renderer": Ablation({"image_steps": 8}),
    "32 steps of the renderer": Ablation({"image_steps": 32}),
    "4 steps of the converter": Ablation({"code_steps": 4}),
    "Euler's steps": Ablation({"solver": "euler"}),
}


def ablate(comparison: Comparison, names: list[str], seed: int, display: Display) -> None:
    """Put a row of each ablation into the table.

    Raises:
        ConfigError: for one that is not known.
    """
    for name in names:
        if name not in ABLATIONS:
            raise ConfigError(unknown("ablation", name, ABLATIONS))
    wanted = [name for name in names if not comparison.table.has(name, seed)]
    if not wanted:
        return
    terms, calibration = comparison.terms, Calibration(comparison.calibration)
    measured_as = {name: f"flow, {name}" if ABLATIONS[name].own_cost else "flow" for name in wanted}

    def config_of(name: str, steps: Mapping[str, int], missing: float = terms.missing) -> RunConfig:
        settings = {**comparison.settings, **ABLATIONS[name].dotted}
        return compared_config(terms.data, "flow", steps, seed, missing, settings)

    for name, label in {WHOLE: "flow", **measured_as}.items():
        if label not in calibration.entries:  # of complete rows, whatever is missing in those that are compared
            calibrate(calibration, label, lambda steps, n=name: config_of(n, steps, 0.0), display)
    data = comparison_data(comparison)
    yardstick = comparison_yardstick(comparison, data, display)
    comparison.table.refuse_other_counts(yardstick)
    base = comparison.folder_of(WHOLE, seed)
    whole = config_of(WHOLE, calibration.steps("flow", terms.budget))
    trained_past_gates(whole, base, display=display, title=f"{WHOLE}, seed {seed}")
    for name in wanted:
        ablation = ABLATIONS[name]
        steps = calibration.steps(measured_as[name], terms.budget)
        if ablation.settings.get("converter") == "product":
            steps["converter"] = 0
        config, folder = config_of(name, steps), base
        if not ablation.only_drawn:
            steps["sources"] = 0
            folder = comparison.folder_of(name.replace(" ", "-"), seed)
            config = config.model_copy(update={"model": config.model.model_copy(update={"reuse": str(base.resolve())})})
        run = trained_past_gates(config, folder, display=display, title=f"{name}, seed {seed}")
        facts = facts_of(run, steps, data)
        facts["settings"] = {**facts["settings"], "reuse": None if ablation.only_drawn else WHOLE}
        judge(comparison, run.model, data, yardstick, name, seed, facts, display)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="polymnist")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--only", help=f"some of: {', '.join(ABLATIONS)}")
    parser.add_argument("--missing", type=float, default=0.0, help="share of the training images that are removed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ablations"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps-from", type=Path, help="file of measured steps [RESULTS/../calibration-DATA.json]")
    parser.add_argument("--test-rows", type=int, default=1000, help="0 for all")
    parser.add_argument("--generated", type=int, default=1000)
    parser.add_argument("--photographs", type=int, default=1000)
    arguments = parser.parse_args()
    calibration = arguments.steps_from or arguments.results.parent / f"calibration-{arguments.data}.json"
    looked_at = (arguments.test_rows or None, arguments.generated, arguments.photographs)
    terms = Terms(arguments.data, seconds(arguments.budget), arguments.missing, *looked_at)
    comparison = Comparison(terms, calibration, arguments.results, arguments.runs)
    names = arguments.only.split(",") if arguments.only else list(ABLATIONS)
    ablate(comparison, names, arguments.seed, progress(False))


if __name__ == "__main__":
    main()
