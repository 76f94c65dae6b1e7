"""Run folders and checkpoints: config.json and safetensors, a format version and hashes; nothing is ever unpickled.

RUN/config.json                             settings, sources, the data set's card
RUN/metrics.jsonl                           losses while training
RUN/checkpoints/step-00000120/
    checkpoint.json                         step, run length, hashes of the files beside it
    model.safetensors                       the weights that answer questions (averaged over training)
    training.safetensors                    raw weights and optimiser, to go on with training
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from msvae.config import RunConfig, parse
from msvae.errors import CheckpointError, ConfigError
from msvae.files import read_json, refuse_unwritable, sha256, unambiguous, write_folder, write_json
from msvae.source import Source

log = logging.getLogger("msvae.training")
FORMAT_VERSION = 3  # of flows: 2 has a sampler, 3 evidence of mixtures too
KEPT_CHECKPOINTS = 2
LOCK = ".lock"
MODEL_FILE, TRAINING_FILE, MANIFEST = "model.safetensors", "training.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """One stored state of training.

    Args:
        step: optimiser steps taken.
        total_steps: length of the run, or None while a time budget is still being measured.
        seconds: time spent training so far.
        finished: whether training has ended.
        extra: small states that are not tensors.
    """

    step: int
    total_steps: int | None
    seconds: float
    finished: bool
    extra: Mapping[str, Any]


class RunFolder:
    """Everything that a run leaves on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = unambiguous(path)

    @property
    def metrics_log(self) -> Path:
        return self.path / "metrics.jsonl"

    def create(self, config: RunConfig, sources: tuple[Source, ...], description: Mapping[str, Any]) -> None:
        """Start a new run.

        Raises:
            CheckpointError: see `refuse_taken`.
        """
        self.refuse_taken()
        write_json(
            self.path / "config.json",
            {
                "format": "msvae run",
                "format_version": FORMAT_VERSION,
                "config": config.model_dump(mode="json"),
                "sources": [source.to_dict() for source in sources],
                **description,
            },
        )

    def refuse_taken(self) -> None:
        """Ask before long work whether a new run can begin here.

        Raises:
            CheckpointError: if the folder exists and is not empty, or nothing can be written there.
        """
        if self.path.is_file():
            raise CheckpointError(f"{self.path} is a file; a run needs a folder.")
        if any(entry.name != LOCK for entry in (self.path.iterdir() if self.path.exists() else ())):
            if (self.path / "config.json").exists():
                raise CheckpointError(
                    f"The folder {self.path} already holds a run. Go on with it (msvae train --resume {self.path}), "
                    "or choose another one (--out)."
                )
            raise CheckpointError(f"The folder {self.path} is not empty and holds no run. Choose another one (--out).")
        refuse_unwritable(next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir()))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While a process trains in the folder, no other one does: each would delete what the other writes.

        Raises:
            CheckpointError: if another process does.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"Another process is training in {self.path}.") from None
        except (OSError, NotImplementedError):  # a disk that is full, or knows no locks
            log.debug("No lock in %s.", self.path)
        try:
            yield
        finally:
            lock.release()

    def discard(self) -> None:
        """Remove the folder with all that is in it.

        Raises:
            CheckpointError: if a process is training in it.
        """
        if self.path.exists():
            with self.alone():  # whose own file some systems do not remove while it is open
                for entry in self.path.iterdir():
                    if entry.is_dir():
                        shutil.rmtree(entry, ignore_errors=True)
                    elif entry.name != LOCK:
                        entry.unlink(missing_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)

    def description(self) -> dict[str, Any]:
        """The whole content of config.json.

        Raises:
            CheckpointError: if there is no run, or a newer msvae wrote it.
        """
        if not (self.path / "config.json").is_file():
            raise CheckpointError(f"{self.path} holds no run: there is no config.json in it.")
        content = read_json(self.path / "config.json")
        _check_version(content, self.path / "config.json")
        return content

    def config(self) -> RunConfig:
        """The run's settings.

        Raises:
            ConfigError: naming the file and every setting in it that does not fit.
        """
        description = self.description()
        settings = _field(description, "config", dict, self.path)
        try:
            return parse(RunConfig, _upgraded(settings, description["format_version"]))
        except ConfigError as error:
            raise ConfigError(f"{self.path / 'config.json'}: {error}") from None

    def sources(self) -> tuple[Source, ...]:
        entries = _field(self.description(), "sources", list, self.path)
        try:
            return tuple(Source.from_dict(fields) for fields in entries)
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{self.path / 'config.json'} is damaged: sources: {error}.") from None

    def checkpoints(self) -> list[Path]:
        """Folders of whole checkpoints, oldest first; one that a kill left aside, when it was replaced, is one too."""
        folder, step = self.path / "checkpoints", "step-" + 8 * "[0-9]"
        aside = [path for path in folder.glob(f".{step}.old") if not path.with_name(path.stem[1:]).exists()]
        whole = [path for path in (*folder.glob(step), *aside) if (path / MANIFEST).is_file()]
        return sorted(whole, key=lambda path: path.name.strip("."))

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            CheckpointError: if there is none yet.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            raise CheckpointError(f"The run {self.path} has no checkpoint yet; train it first.")
        return checkpoints[-1]

    def save(self, checkpoint: Checkpoint, model: Mapping[str, Tensor], training: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, whole or not at all, and remove the oldest ones and what kills have left."""

        def fill(folder: Path) -> None:
            try:
                save_file(_plain(model), folder / MODEL_FILE)
                save_file(_plain(training), folder / TRAINING_FILE)
            except SafetensorError as error:
                raise OSError(str(error)) from None
            write_json(
                folder / MANIFEST,
                {
                    "format": "msvae checkpoint",
                    "format_version": FORMAT_VERSION,
                    "step": checkpoint.step,
                    "total_steps": checkpoint.total_steps,
                    "seconds": checkpoint.seconds,
                    "finished": checkpoint.finished,
                    "extra": dict(checkpoint.extra),
                    "sha256": {name: sha256(folder / name) for name in (MODEL_FILE, TRAINING_FILE)},
                },
            )

        folder = self.path / "checkpoints"
        write_folder(folder / f"step-{checkpoint.step:08d}", fill)
        for old in (*self.checkpoints()[:-KEPT_CHECKPOINTS], *folder.glob(".step-*")):
            shutil.rmtree(old, ignore_errors=True)

    def state(self) -> Checkpoint:
        """What the newest checkpoint says of itself."""
        return _manifest(self.latest())[0]

    def model_weights(self) -> dict[str, Tensor]:
        """The weights that answer questions, from the newest checkpoint."""
        return _load(self.latest(), MODEL_FILE)

    def training_state(self) -> dict[str, Tensor]:
        """Raw weights, averaged weights and optimiser state, from the newest checkpoint."""
        return _load(self.latest(), TRAINING_FILE)


def _upgraded(settings: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    """Settings of an older run: in version 1 a flow drew codes from nothing by its converter alone; before version 3
    its `evidence` was the converter's alone, usually 2, and nothing to codes of the mixture."""
    model = settings.get("model")
    if not isinstance(model, Mapping) or model.get("method") != "flow":
        return settings
    changed: dict[str, Any] = {"sampler": "none"} if version == 1 else {}
    if version < 3 and (model.get("evidence") == 2.0 or model.get("codes_by") == "mixture"):
        changed["evidence"] = None
    return {**settings, "model": {**model, **changed}}


def _field(content: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    if not isinstance(content.get(key), kind):
        raise CheckpointError(f"{path / 'config.json'} is damaged: {key!r} is missing or of the wrong type.")
    return content[key]


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _check_version(content: Mapping[str, Any], path: Path) -> None:
    version = content.get("format_version")
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is damaged: it has no format version.")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this msvae reads up to {FORMAT_VERSION}. Upgrade msvae to open it."
        )


def _manifest(folder: Path) -> tuple[Checkpoint, dict[str, str]]:
    try:
        content = read_json(folder / MANIFEST)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_others(folder)}".strip()) from None
    _check_version(content, folder / MANIFEST)
    try:
        fields = {key: content[key] for key in ("step", "total_steps", "seconds", "finished", "extra")}
        return Checkpoint(**fields), content["sha256"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {error}. {_others(folder)}".strip()) from None


def _load(folder: Path, name: str) -> dict[str, Tensor]:
    _, hashes = _manifest(folder)
    file = folder / name
    others = _others(folder)
    if not file.is_file():
        raise CheckpointError(f"The checkpoint {folder} lacks {name}. {others}".strip())
    if sha256(file) != hashes.get(name):
        raise CheckpointError(f"{file} is damaged: its content does not match its hash. {others}".strip())
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}. {others}".strip()) from None


def _others(folder: Path) -> str:
    """What to do about a damaged checkpoint."""
    older = any(path.name < folder.name for path in folder.parent.glob("step-*"))
    return "Remove this folder to go back to the checkpoint before it." if older else ""
