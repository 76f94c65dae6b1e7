"""The table of a comparison on disk: one JSON file for a data set, a budget and a share of missing images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msvae.errors import ConfigError
from msvae.evaluation.yardstick import Yardstick, mean
from msvae.files import one_at_a_time, read_json, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Terms:
    """What all rows of a table have in common; rows of other terms do not belong into it.

    Args:
        data: name of the set.
        budget: seconds of training on an idle machine.
        missing: share of the training images that are missing.
        test_rows, generated_rows, photographs: how much is looked at (see `Extent`); None for all test rows.
    """

    data: str
    budget: float
    missing: float
    test_rows: int | None
    generated_rows: int
    photographs: int

    @property
    def file_name(self) -> str:
        missing = f"-missing{round(100 * self.missing)}" if self.missing else ""
        return f"quality-{self.data}-{self.budget:g}s{missing}.json"


class Results:
    """The rows of a table, each of a method and a seed; rows are added or replaced one by one, each time atomically.

    Args:
        path: the file; it need not exist yet.
        terms: what its rows have in common; None to take the file's.

    Raises:
        ConfigError: if the file holds rows of other terms, or is of a newer format.
    """

    def __init__(self, path: Path, terms: Terms | None = None) -> None:
        self.path = path
        content = read_json(path) if path.exists() else {}
        if content.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise ConfigError(f"{path} has format version {content['format_version']}; upgrade msvae to read it.")
        if not content and terms is None:
            raise ConfigError(f"There is no table {path}.")
        stored = Terms(**content["terms"]) if content else terms
        if terms is not None and stored != terms:
            raise ConfigError(f"{path} holds rows of other terms: {stored}, not {terms}. Choose another folder.")
        assert stored is not None
        self.terms = stored
        self.ceilings: dict[str, Any] = dict(content.get("ceilings", {}))
        self.rows: list[dict[str, Any]] = list(content.get("rows", []))

    def has(self, method: str, seed: int) -> bool:
        """Whether there is a row."""
        return any((row["method"], row["seed"]) == (method, seed) for row in self.rows)

    def refuse_other_settings(self, chosen: Mapping[str, Any], replaced: Sequence[tuple[str, int]] = ()) -> None:
        """Rows that were made with other settings over the usual ones do not belong into one table.

        Args:
            replaced: methods and seeds whose rows will be made anew. Rows of before these settings were kept pass.

        Raises:
            ConfigError: naming such a row.
        """
        for row in self.rows:
            method, seed = row["method"], row["seed"]
            if (method, seed) not in replaced and row.get("chosen", chosen) != dict(chosen):
                raise ConfigError(
                    f"{self.path} has {method!r}, seed {seed}, with other settings: "
                    f"{row['chosen'] or 'the usual ones'}, not {dict(chosen) or 'the usual ones'}. "
                    "Choose another folder (--results), or replace the row (--again)."
                )

    def refuse_other_models(
        self, method: str, settings: Mapping[str, Any], replaced: Sequence[tuple[str, int]] = ()
    ) -> None:
        """The seeds of a method are one model: defaults change, and what came of other ones has no part in a mean.

        Args:
            settings: of the model that will be added. Settings that a row does not have are not compared.
            replaced: methods and seeds whose rows will be made anew.

        Raises:
            ConfigError: naming a row of other settings.
        """
        for row in self.rows:
            seed, known = row["seed"], row.get("settings", {})
            if row["method"] != method or (method, seed) in replaced:
                continue
            other = {name: value for name, value in settings.items() if name in known and known[name] != value}
            if other:
                told = ", ".join(f"{name} was {known[name]}, is {value}" for name, value in other.items())
                raise ConfigError(
                    f"{self.path} has {method!r}, seed {seed}, of other settings ({told}). Choose another folder "
                    "(--results), or replace it (--again with all its seeds)."
                )

    def refuse_other_counts(self, yardstick: Yardstick) -> None:
        """A Fréchet distance of few images is larger than one of many.

        Raises:
            ConfigError: if the rows that are there were judged by another number of images.
        """
        count = None if yardstick.photographs is None else yardstick.photographs.rows
        known = self.ceilings.get("photographs")
        if self.rows and known != count:
            raise ConfigError(
                f"{self.path} has Fréchet distances of {known} images, not of {count}. Choose another folder "
                "(--results)."
            )

    def add(self, row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> None:
        """Put a row (`method`, `seed` and whatever else) in its place, and the ceilings of real rows beside it.

        Rows that another process has added since this table was opened stay.
        """
        with one_at_a_time(self.path):
            stored = read_json(self.path)["rows"] if self.path.exists() else self.rows
            kept = [r for r in stored if (r["method"], r["seed"]) != (row["method"], row["seed"])]
            self.rows = [*kept, dict(row)]
            self.ceilings = dict(ceilings)
            content = {
                "format_version": FORMAT_VERSION,
                "terms": asdict(self.terms),
                "ceilings": self.ceilings,
                "rows": self.rows,
            }
            write_json(self.path, content)


def summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of `metrics.json` that are kept with a row, None for what could not be computed."""
    seen, made, ceilings = figures["photographs"], figures["generation"], figures["ceilings"]
    probes = _probes_by_size(figures["probe"])
    coherence = figures["conditional_coherence"]
    # without a fitted sampler the only generated rows are the prior's
    prior, fitted = ("", None) if made.get("drawn_from") == "prior" else ("prior_", "")
    return {
        **{f"coherence_{size}": value for size, value in coherence.items()},
        "joint_coherence": None if fitted is None else made.get("joint_coherence"),
        "prior_joint_coherence": made.get(f"{prior}joint_coherence"),
        "class_entropy": made.get("class_entropy"),
        "prior_class_entropy": made.get(f"{prior}class_entropy"),
        "within_class_variance": made.get("within_class_variance"),
        **{f"frechet_conditional_{size}": value for size, value in seen.get("conditional", {}).items()},
        "frechet_unconditional": None if fitted is None else seen.get("unconditional"),
        "prior_frechet_unconditional": seen.get(f"{prior}unconditional"),
        "frechet_reconstruction": seen.get("reconstruction"),
        "wide_frechet": seen.get("wide"),
        "feature_distance": seen.get("feature_distance"),
        "verifier_frechet": made.get("frechet"),
        "within_class_variance_reconstruction": ceilings.get("within_class_variance_reconstruction"),
        "probe_1": probes.get(1),
        "probe_all": probes.get(len(figures["sources"])),
        "walks": figures.get("walks"),
        "psnr": mean([entry["psnr"] for entry in figures["sources"].values()]),
        **figures["monotonicity"],
    }


def real_ceilings(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What real rows score, by the names of `summary`."""
    ceilings, seen = figures["ceilings"], figures["photographs"]
    coherent = list(ceilings.get("classifier_coherence", {}).values())
    coherence = mean(coherent)
    names = [f"coherence_{size}" for size in figures["conditional_coherence"]]
    return {
        **dict.fromkeys(names, coherence),
        "joint_coherence": ceilings.get("joint_coherence"),
        **{f"frechet_conditional_{size}": seen.get("real_train_test") for size in seen.get("conditional", {})},
        "frechet_unconditional": seen.get("real_train_test"),
        "frechet_reconstruction": 0.0 if seen else None,
        "within_class_variance": 1.0 if coherent else None,
        "classifier_accuracy": ceilings.get("classifier_accuracy"),
        "wide_frechet": seen.get("wide", {}).get("real_train_test"),
        "photographs": seen.get("rows"),
        "features": seen.get("features"),
    }


def _probes_by_size(probes: Mapping[str, float]) -> dict[int, float]:
    """Mean accuracy by the number of sources that the code is made from."""
    by_size: dict[int, list[float]] = {}
    for label, value in probes.items():
        by_size.setdefault(label.count("+") + 1, []).append(value)
    return {size: sum(values) / len(values) for size, values in by_size.items()}
