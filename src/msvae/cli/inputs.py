"""How the words of a question become rows: image files and folders, or the run's own test rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msvae.cli.options import parse_rows, parse_sampling

if TYPE_CHECKING:
    from msvae.source import Source, SourceBatch
    from msvae.training.opening import Run


def asked(
    run: Path, given: list[str], rows: str, sampling: list[str] | None = None, *, empty: bool = False
) -> "tuple[Run, SourceBatch, list[str]]":
    """The opened run, the given rows and their names.

    Args:
        sampling: settings of how a flow draws.
        empty: whether test rows without any of the given sources count; else they are left out, and named.
    """
    from msvae.cli.output import console
    from msvae.data.images import read_rows
    from msvae.errors import ConfigError, DataError
    from msvae.source import source_named
    from msvae.training.opening import open_run

    opened = open_run(run, sampling=parse_sampling(sampling))
    paths: dict[str, Path | None] = {}
    for text in given:
        name, equals, path = text.partition("=")
        source_named(opened.model.sources, name)
        if equals and not path:
            raise ConfigError(f"--given {text!r}: expected a path behind the =.")
        if name in paths:
            raise ConfigError(f"Source {name!r} is given twice.")
        paths[name] = Path(path) if equals else None
    files = {name: path for name, path in paths.items() if path is not None}
    if files and len(files) < len(paths):
        raise ConfigError("Give a path for every source, or for none (then the run's test rows are taken).")
    if files:
        batch, names = read_rows(files, opened.model.sources)
        return opened, batch, names
    test = opened.data().split("test")
    chosen = parse_rows(rows, len(test))
    batch = test.batch(slice(chosen.start, chosen.stop)).select(paths)
    known = test.columns.get("row")
    labels = [f"{row:05d}" if known is None else str(known[row]) for row in chosen]
    has_one = batch.presence(batch.names).any(dim=0)
    if empty or bool(has_one.all()):
        return opened, batch, labels
    lost = [label for label, there in zip(labels, has_one.tolist(), strict=True) if not there]
    what = f"none of the given sources ({', '.join(paths)}): {', '.join(lost)}"
    if not bool(has_one.any()):
        raise DataError(f"These test rows have {what}. Choose others with --rows.")
    console().print(f"Left out are test rows with {what}", markup=False, highlight=False, soft_wrap=True)
    return opened, batch.rows(has_one), [label for label in labels if label not in lost]


def answered_sources(run: "Run", images: object) -> "list[Source]":
    """The sources of an answer, in the model's order."""
    return [source for source in run.model.sources if source.name in images]  # type: ignore[operator]


def numbered(names: list[str], n: int) -> list[str]:
    return names if n == 1 else [f"{name}-{number:02d}" for name in names for number in range(n)]


def answer_mode(text: str) -> Literal["sample", "mean"]:
    from msvae.errors import ConfigError, unknown

    if text == "mean" or text == "sample":
        return text
    raise ConfigError(unknown("mode", text, ["mean", "sample"]))
