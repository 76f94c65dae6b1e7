"""On what and from which state of the sources a figure was measured."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

import msvae
from msvae.training.devices import device_named


def circumstances() -> dict[str, Any]:
    """Date, processor, threads, device, versions and commit, as every result records them."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": device_name(),
        "torch": torch.__version__,
        "msvae": msvae.__version__,
        "commit": commit(),
    }


def device_name() -> str:
    """The device that models are trained on and answer on, where nobody chooses: `cpu`, or a GPU's name."""
    device = device_named()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processor() -> str:
    """The processor's name, as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def commit() -> str | None:
    """The commit of the source tree that runs, with `+` behind it where files were changed; None for a package.

    As it was when it was first asked for: what runs does not change with what is committed later.
    """
    here = Path(msvae.__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", "__init__.py")  # a package may lie in another project's folder
        hash_ = _git(here, "rev-parse", "--short=10", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", str(here))
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{hash_}+" if changed else hash_


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
