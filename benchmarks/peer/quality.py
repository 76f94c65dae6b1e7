"""The peer's methods under the budget of a comparison, in the same table as ours, judged by the same judges.

    python benchmarks/peer/quality.py --stubs FOLDER --data polymnist --budget 5m --methods mvtcae,mopoe,mmvae,mmvae+

Run it where PyPI `multivae` is installed beside this project (see benchmarks/README.md). Training is forward, backward
and Adam on rows in memory, without the peer's own trainer, which is slower. Steps are calibrated like ours: run it with
`--calibrate` on an idle machine first. Give the options of `msvae bench quality` that made the table.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from peer.adapter import PeerModel
from peer.pairing import import_peer
from peer.published import Published, published

from msvae.benchmarking.calibration import Calibration, calibrate_loop
from msvae.benchmarking.quality import Comparison, comparison_data, comparison_yardstick, judge
from msvae.benchmarking.results import Terms
from msvae.config import seconds
from msvae.data.base import Rows
from msvae.files import write_json
from msvae.training.schedule import BatchOrder


class Trainer:
    """One of its models in training: batches in the order of our own loop."""

    def __init__(self, method: Published, rows: Rows, seed: int) -> None:
        torch.manual_seed(seed)
        self.rows = rows
        self.model = method.build([source.name for source in rows.sources]).train()
        self.model.device = "cpu"
        self.optimizer = method.fresh_optimizer(self.model)
        self.order = BatchOrder(len(rows), method.batch_size, seed)
        self.step = 0

    def advance(self) -> float:
        """One step; returns its seconds."""
        began = time.perf_counter()
        inputs = self._inputs(self.order(self.step))
        epoch = 1 + self.step // self.order.per_epoch
        loss = self.model(inputs, epoch=epoch, dataset_size=len(self.rows), uses_ddp=False, batch_ratio=0).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return time.perf_counter() - began

    def _inputs(self, index: torch.Tensor) -> Any:
        from multivae.data.datasets.base import DatasetOutput

        batch = self.rows.batch(index)
        if all(bool(present.all()) for present in batch.present.values()):
            return DatasetOutput(data=batch.values)
        blank = {}  # what is absent must still be finite numbers for it
        for name, values in batch.values.items():
            has_it = batch.present[name].view(-1, *[1] * (values.dim() - 1))
            blank[name] = torch.where(has_it, values, torch.zeros_like(values))
        return DatasetOutput(data=blank, masks=batch.present)


def trained(trainer: Trainer, steps: int, path: Path) -> float:
    """Train it, or take the weights of an earlier training of as many steps; returns the training's seconds."""
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["steps"] == steps:
            trainer.model.load_state_dict(kept["weights"])
            return kept["seconds"]
    spent = sum(trainer.advance() for _ in range(steps))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save({"steps": steps, "seconds": spent, "weights": trainer.model.state_dict()}, unfinished)
    unfinished.replace(path)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", type=Path, help="folder of stand-ins for what the peer imports")
    parser.add_argument("--data", default="polymnist")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--methods", default="mvtcae,mopoe,mmvae,mmvae-k1,mmvae+")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--missing", type=float, default=0.0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--steps-from", type=Path, help="file of measured steps [RESULTS/calibration-DATA.json]")
    parser.add_argument("--test-rows", type=int, default=2000, help="0 for all")
    parser.add_argument("--generated", type=int, default=2000)
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--calibrate", action="store_true", help="measure steps alone, and nothing else")
    arguments = parser.parse_args()
    import_peer(arguments.stubs)
    terms = Terms(
        arguments.data,
        seconds(arguments.budget),
        arguments.missing,
        arguments.test_rows or None,
        arguments.generated,
        arguments.photographs,
    )
    measured = arguments.steps_from or arguments.results / f"calibration-{arguments.data}.json"
    comparison = Comparison(terms, measured, arguments.results, arguments.runs)
    methods, names = published(), arguments.methods.split(",")
    data = comparison_data(comparison)
    complete = comparison_data(replace(comparison, terms=replace(terms, missing=0.0)))  # what steps are measured on
    calibration = Calibration(measured)
    for name in names:
        if arguments.calibrate or f"peer {name}" not in calibration.entries:
            method, rows = methods[name], complete.split("train")
            facts = {"batch_size": method.batch_size, "note": method.note}
            per_step = calibrate_loop(
                calibration, f"peer {name}", lambda m=method, r=rows: Trainer(m, r, 0).advance, **facts
            )
            print(f"peer {name}: {1000 * per_step:.0f} ms a step", flush=True)
    if arguments.calibrate:
        return
    wanted = [
        (name, int(seed))
        for seed in arguments.seeds.split(",")
        for name in names
        if not comparison.table.has(f"peer {name}", int(seed))
    ]
    yardstick = comparison_yardstick(comparison, data) if wanted else None
    if yardstick is not None:
        comparison.table.refuse_other_counts(yardstick)
    for name, seed in wanted:
        assert yardstick is not None
        label = f"peer {name}"
        steps = calibration.steps(label, terms.budget)
        folder = comparison.folder_of(f"peer-{name}", seed)
        trainer = Trainer(methods[name], data.split("train"), seed)
        spent = trained(trainer, sum(steps.values()), folder / "model.pt")
        model = PeerModel(data.sources, trainer.model)
        model.fit_sampler(data.split("train"), seed)
        facts = {
            "steps": sum(steps.values()),
            "stages": steps,
            "training_seconds": round(spent, 1),
            "batch_size": methods[name].batch_size,
            "rows_in_training": len(data.split("train")),
            "precision": "fp32",
            "settings": {"note": methods[name].note},
        }
        figures = judge(comparison, model, data, yardstick, label, seed, facts)
        write_json(folder / "metrics.json", figures)
        print(
            f"{label}, seed {seed}: {sum(steps.values())} steps, coherence {figures['conditional_coherence']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
