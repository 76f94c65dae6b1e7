"""The losses of a run as JSON lines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msvae.errors import CheckpointError
from msvae.files import write_text
from msvae.models.base import Loss


class MetricsLog:
    """Appends records to a file, each a line; after a kill it goes on where the checkpoint stands.

    Args:
        path: the file; it need not exist.
        writes: False in a process that leaves it to another one.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, with six digits of each figure.

        Raises:
            CheckpointError: if it cannot be written (for example a full disk).
        """
        if not self.writes:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: _six_digits(value) for name, value in record.items()}) + "\n")
        except OSError as error:
            raise CheckpointError(f"Cannot write {self.path}: {error.strerror or error}.") from None

    def records(self) -> list[dict[str, Any]]:
        """All whole lines; the one that a killed process was writing is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                records.append(record)
        return records

    def has_gate(self, stage: str) -> bool:
        """Whether the gate of a stage was looked at."""
        return any(record.get("gate") == stage for record in self.records())

    def cut_after(self, step: int) -> None:
        """Drop what was written after the checkpoint of that step."""
        if self.writes and self.path.exists():
            kept = [record for record in self.records() if record["step"] <= step]
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))


def loss_figures(loss: Loss) -> dict[str, float]:
    """A loss and its terms by name, as numbers."""
    return {"loss": float(loss.total), **{name: float(value) for name, value in loss.terms.items()}}


def _six_digits(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
