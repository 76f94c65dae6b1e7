"""What reading training rows costs: time beside a training step, and memory as the rows grow.

    python benchmarks/loader.py                    time, memory at 1x and 10x the rows, and a sparse set of 20 GB
    python benchmarks/loader.py --only time

Memory is that of a fresh process each: `peak_mb` is its peak resident memory, `anonymous_mb` what of it belongs to no
file (RssAnon, sampled every 20 ms), which the system cannot drop. The large set is a sparse file: its zeros take no
disk, but are read as any others. It is trained under an address-space limit of its own size plus 4 GB, since mapped
files count there. Prints JSON.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

POLYMNIST = (5, (3, 28, 28), 256)
LIMIT = 4 << 30


def store(
    folder: Path, rows: int, sources: int, shape: tuple[int, ...], dtype: str = "uint8", fill: bool = True
) -> None:
    """A set of noise; or, not filled, of zeros that take no disk."""
    import numpy as np

    from msvae.data.store import new_store
    from msvae.source import Source

    noise = np.random.default_rng(0)
    made = [Source(f"s{number}", shape) for number in range(sources)]
    with new_store(folder, "noise", made, {"train": rows}, dtypes={s.name: dtype for s in made}) as splits:
        for source in made:
            splits["train"].present[source.name][:] = True
            if fill:
                for start in range(0, rows, 1000):
                    part = splits["train"].values[source.name][start : start + 1000]
                    part[:] = noise.integers(0, 256, part.shape)


def time_of_a_step(steps: int) -> dict[str, float]:
    """Seconds of reading a batch, and of a whole training step at the same shapes, on one core."""
    import torch

    from msvae.config import ModelConfig, TrainingConfig, parse
    from msvae.data.store import open_store
    from msvae.models import build_model, with_method
    from msvae.training.schedule import BatchOrder

    torch.set_num_threads(1)
    count, shape, batch_size = POLYMNIST
    with tempfile.TemporaryDirectory() as folder:
        store(Path(folder) / "set", 20_000, count, shape)
        rows = open_store(Path(folder) / "set").split("train")
        order = BatchOrder(len(rows), batch_size, 0)
        model = build_model(rows.sources, parse(ModelConfig, with_method("mopoe", {})))
        optimizer = torch.optim.AdamW(model.parameters(), lr=TrainingConfig().learning_rate)
        reading, training = [], []
        for step in range(steps):
            began = time.perf_counter()
            batch = rows.batch(order(step))
            read = time.perf_counter()
            model.loss(batch).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            reading.append(read - began)
            training.append(time.perf_counter() - read)
    skipped = steps // 5
    middle = lambda times: sorted(times[skipped:])[len(times[skipped:]) // 2]  # noqa: E731
    return {
        "read_ms": round(1000 * middle(reading), 2),
        "step_ms": round(1000 * middle(training), 1),
        "share": round(middle(reading) / (middle(reading) + middle(training)), 4),
    }


class Anonymous(threading.Thread):
    """The largest RssAnon of this process, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest = 0.0
        self.start()

    def run(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.largest = max(self.largest, int(line.split()[1]) / 1024)
            time.sleep(0.02)


def train_once(folder: Path, steps: int, batch_size: int, limited: bool) -> dict[str, float]:
    """Train on a stored set the way `msvae.train` does, and tell what memory it took."""
    import torch

    from msvae import api
    from msvae.data.store import open_store

    torch.set_num_threads(1)
    data = open_store(folder)
    size = sum(value.numel() * value.element_size() for value in data.split("train").values.values())
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))
    watch = Anonymous()
    settings = {"training.steps": steps, "training.batch_size": batch_size, "model.width": 8, "model.latent": 16}
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        api.train(data, "poe", out=Path(out) / "run", settings={**settings, "training.balance": 0.5})
        seconds = time.perf_counter() - began
    return {
        "gb": round(size / 1e9, 2),
        "rows": len(data.split("train")),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "anonymous_mb": round(watch.largest),
        "seconds": round(seconds, 1),
    }


def decode_once(rows: int) -> dict[str, float]:
    """Decode so many rows of two PNG folders, and tell what memory it took."""
    import numpy as np
    from PIL import Image

    from msvae.config import DataConfig
    from msvae.data import load_data

    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MSVAE_CACHE"] = f"{folder}/cache"
        for name in ("a", "b"):
            (Path(folder) / "set" / name).mkdir(parents=True)
            for row in range(rows):
                picture = Image.fromarray(noise.integers(0, 256, (28, 28, 3), dtype=np.uint8))
                picture.save(Path(folder) / "set" / name / f"{row:06d}.png")
        watch = Anonymous()
        began = time.perf_counter()
        load_data(DataConfig(name=f"{folder}/set"))
        first = time.perf_counter() - began
        began = time.perf_counter()
        load_data(DataConfig(name=f"{folder}/set"))
        second = time.perf_counter() - began
    return {
        "rows": rows,
        "anonymous_mb": round(watch.largest),
        "first_seconds": round(first, 2),
        "again_seconds": round(second, 2),
    }


def in_a_process(*words: object) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def memory() -> dict[str, Any]:
    """Training and decoding at 1x and 10x the rows."""
    count, shape, _ = POLYMNIST
    answer: dict[str, Any] = {"training": [], "decoding": []}
    with tempfile.TemporaryDirectory() as folder:
        for rows in (6_000, 60_000):
            store(Path(folder) / str(rows), rows, count, shape)
            answer["training"].append(in_a_process("--train", Path(folder) / str(rows), "--batch", 64))
    for rows in (1_000, 10_000):
        answer["decoding"].append(in_a_process("--decode", rows))
    return answer


def large() -> dict[str, Any]:
    """20 GB of float images: 2 sources of 3x64x64, 203,500 rows."""
    with tempfile.TemporaryDirectory() as folder:
        store(Path(folder) / "large", 203_500, 2, (3, 64, 64), "float32", fill=False)
        measured = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True)
        return {
            "disk_mb": int(measured.stdout.split()[0]),
            "budget_gb": LIMIT / (1 << 30),
            **in_a_process("--train", Path(folder) / "large", "--batch", 64, "--limited"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["time", "memory", "large"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--decode", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--limited", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train is not None:
        print(json.dumps(train_once(options.train, 10, options.batch, options.limited)))
        return
    if options.decode is not None:
        print(json.dumps(decode_once(options.decode)))
        return
    parts = {"time": lambda: time_of_a_step(options.steps), "memory": memory, "large": large}
    wanted = [options.only] if options.only else list(parts)
    answer = {name: parts[name]() for name in wanted}
    print(json.dumps({**answer, "load": round(os.getloadavg()[0], 1)}, indent=1))


if __name__ == "__main__":
    main()
