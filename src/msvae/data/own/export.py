"""Any data set written as files that other tools read, and that msvae reads again: folders, arrays or shards."""

import csv
import dataclasses
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from msvae.data.base import DataSet, Rows, in_range
from msvae.data.own.layout import LABELS_FILE
from msvae.data.own.settings import SETTINGS_FILE, OwnSettings, SourceSettings, write_settings
from msvae.data.writing import PNG_CHANNELS, file_numbers, write_numbers
from msvae.errors import DataError, unknown
from msvae.source import FileForm, Source
from msvae.training.progress import Tell

KINDS = ("folders", "npz", "shards")
ROWS_AT_ONCE = 64
ROWS_IN_A_SHARD = 1000


def export(data: DataSet, out: Path, to: str, tell: Tell) -> list[str]:
    """Write a set into a new folder, whole or not at all: images, `labels.csv` with the splits, `sources.yaml`.

    Volumes come out as their single cuts (NumPy files), so that rows keep their names.

    Args:
        to: `folders`: a folder per source and a file per row; `npz`: a file per source; `shards`: WebDataset tars.

    Returns:
        What could not be written: columns with more than one value a row.

    Raises:
        DataError: if the folder is there already, a name does not fit the layout, or the disk is full.
    """
    if to not in KINDS:
        raise DataError(unknown("layout", to, KINDS))
    if out.exists():
        raise DataError(f"{out} exists; choose another folder (--out).")
    names = {split: row_names(rows, split) for split, rows in data.splits.items()}
    sources = [written_source(source, data) for source in data.sources]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        partial.chmod(0o755)
    except OSError as error:
        raise DataError(f"Cannot write {out}: {error.strerror or error}.") from None
    try:
        write = {"folders": _folders, "npz": _arrays, "shards": _shards}[to]
        write(data, sources, names, partial, tell)
        left_out = _labels(data, names, partial / LABELS_FILE)
        write_settings(partial / SETTINGS_FILE, _settings(data, sources, to))
        partial.replace(out)
    except OSError as error:
        raise DataError(f"Cannot write {out}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return left_out


def row_names(rows: Rows, split: str) -> list[str]:
    """The names of rows, or numbers where they have none."""
    if "row" in rows.columns:
        return [str(name) for name in rows.columns["row"]]
    return [f"{split}-{number:06d}" for number in range(len(rows))]


def written_source(source: Source, data: DataSet) -> Source:
    """The source with the form that its images are written in: that of its files, as far as it is for single images."""
    dtype = str(next(iter(data.splits.values())).values[source.name].dtype).removeprefix("torch.")
    form = source.files
    if form is None and dtype.startswith("uint"):
        form = FileForm(dtype=dtype, low=0.0, high=255.0 if dtype == "uint8" else 65535.0)
    elif form is None:
        form = FileForm(format="npy", dtype="float32", low=source.value_range[0], high=source.value_range[1])
    plain = FileForm(format=form.format, dtype=form.dtype, low=form.low, high=form.high)
    holds = PNG_CHANNELS.get(plain.dtype, {})
    if plain.format == "nifti" or not source.is_image or (plain.format == "png" and source.shape[0] not in holds):
        plain = dataclasses.replace(plain, format="npy")
    return dataclasses.replace(source, files=plain)


def _chunks(data: DataSet, tell: Tell) -> Iterator[tuple[str, slice, Rows]]:
    total = sum(len(rows) for rows in data.splits.values())
    done = 0
    for split, rows in data.splits.items():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            tell("writing", done, total)
            stop = min(len(rows), start + ROWS_AT_ONCE)
            yield split, slice(start, stop), rows
            done += stop - start
    tell("writing", total, total)


def _numbers(rows: Rows, source: Source, index: torch.Tensor) -> np.ndarray:
    where = index if rows.chosen is None else rows.chosen[index]
    return file_numbers(in_range(rows.values[source.name][where], source), source)


def _write_chunk(
    rows: Rows, sources: Sequence[Source], part: slice, names: Sequence[str], folder: Path
) -> list[tuple[str, Source, Path]]:
    """The files of some rows: row, source, file."""
    written = []
    for source in sources:
        index = torch.arange(part.start, part.stop)
        index = index[rows.present[source.name][part]]
        here = [names[int(number)] for number in index]
        for name in here:
            if Path(name).name != name or name.startswith("."):
                raise DataError(f"Row {name!r} cannot be the name of a file.")
        files = write_numbers(folder / source.name, _numbers(rows, source, index), source, here)
        written += [(name, source, file) for name, file in zip(here, files, strict=True)]
    return written


def _folders(data: DataSet, sources: Sequence[Source], names: dict[str, list[str]], out: Path, tell: Tell) -> None:
    for split, part, rows in _chunks(data, tell):
        _write_chunk(rows, sources, part, names[split], out)


def _shards(data: DataSet, sources: Sequence[Source], names: dict[str, list[str]], out: Path, tell: Tell) -> None:
    for name in (name for members in names.values() for name in members):
        if "." in name:
            raise DataError(f"Row {name!r}: in shards a row's name ends at its first dot; export to folders instead.")
    for split, part, rows in _chunks(data, tell):
        shard = out / f"{split}-{part.start // ROWS_IN_A_SHARD:06d}.tar"
        with tempfile.TemporaryDirectory(dir=out) as scratch, tarfile.open(shard, "a") as archive:
            members: dict[str, list[tuple[str, Path]]] = {name: [] for name in names[split][part]}
            for name, source, file in _write_chunk(rows, sources, part, names[split], Path(scratch)):
                members[name].append((f"{name}.{source.name}{file.suffix}", file))
            for number, (name, files) in enumerate(members.items(), start=part.start):
                for member, file in files:
                    archive.add(file, arcname=member)
                if rows.labels is not None and files:
                    text = str(int(rows.labels[number])).encode()
                    info = tarfile.TarInfo(f"{name}.cls")
                    info.size = len(text)
                    archive.addfile(info, io.BytesIO(text))


def _arrays(data: DataSet, sources: Sequence[Source], names: dict[str, list[str]], out: Path, tell: Tell) -> None:
    every = np.array([name for members in names.values() for name in members])
    for source in sources:
        form = source.files
        assert form is not None  # `written_source` gave it one
        head = {"descr": np.dtype(form.dtype).str, "fortran_order": False, "shape": (len(every), *source.shape)}
        present = torch.cat([rows.present[source.name] for rows in data.splits.values()]).numpy()
        with zipfile.ZipFile(out / f"{source.name}.npz", "w") as archive:
            with archive.open("images.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_2_0(stream, head)
                for _, part, rows in _chunks(data, tell):
                    images = _numbers(rows, source, torch.arange(part.start, part.stop))
                    images[~rows.present[source.name][part].numpy()] = 0
                    stream.write(images.tobytes())
            for name, column in (("present", present), ("rows", every)):
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, column, allow_pickle=False)


def _labels(data: DataSet, names: dict[str, list[str]], path: Path) -> list[str]:
    """`labels.csv`: row, split, class and further columns of one value a row."""
    first = next(iter(data.splits.values()))
    labelled = all(rows.labels is not None for rows in data.splits.values())
    written = ("row", "split", "label") if labelled else ("row", "split")
    single = [name for name, column in first.columns.items() if column.ndim == 1 and name not in written]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["row", "split", *(["label"] if labelled else []), *single])
        for split, rows in data.splits.items():
            for number, name in enumerate(names[split]):
                label = []
                if labelled and rows.labels is not None:
                    code = int(rows.labels[number])
                    label = [data.class_names[code] if data.class_names else str(code)]
                table.writerow([name, split, *label, *(rows.columns[column][number] for column in single)])
    return sorted({column for column in first.columns if column not in ("row", *single)})


def _settings(data: DataSet, sources: Sequence[Source], to: str) -> OwnSettings:
    described = {}
    for source in sources:
        form = source.files
        assert form is not None
        described[source.name] = SourceSettings(
            path=f"{source.name}.npz" if to == "npz" else source.name,
            array="images" if to == "npz" else None,
            shape=source.shape,
            likelihood=source.likelihood,
            scale=source.scale,
            categories=source.categories,
            file_range=(form.low, form.high),
            value_range=None if source.categories is not None else source.value_range,
            format=form.format,
            dtype=form.dtype,
            channels_last=False if (source.is_image and form.format == "npy") or to == "npz" else None,
        )
    return OwnSettings(
        sources=described, shared_content=data.shared_content, class_names=tuple(data.class_names) or None
    )
