"""What is in a person's own data: sizes, channels, number types, ranges, and the settings that follow from them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msvae.data.formats import Format, Header, Reading, UnreadableError, read_images
from msvae.data.own.layout import Holding, Layout, Origin, Problem
from msvae.data.own.rows import Files, header_of, opened_files, rows_of
from msvae.data.own.settings import OwnSettings, SourceSettings
from msvae.errors import DataError
from msvae.training.progress import Tell

PROPOSED_SIDE = 128  # of images that are larger than networks take
LARGEST_SIDE = 256
COMMON_SHARE = 0.5
BIT_DEPTHS = (1023, 4095, 16383, 65535)


@dataclass
class SourceSurvey:
    """What the files of one source hold.

    Args:
        shapes, dtypes, formats, notes: how many files have which.
        low, high: smallest and largest finite number.
        holes: files with NaN.
    """

    origin: Origin
    files: int = 0
    images: int = 0
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    affines: Counter[tuple[float, ...] | None] = field(default_factory=Counter)
    low: float = float("inf")
    high: float = float("-inf")
    holes: int = 0
    answers: str = "png"

    def count(self, header: Header, known: Format) -> None:
        self.shapes[header.shape] += 1
        self.dtypes[header.dtype] += 1
        self.formats[known.name] += 1
        self.affines[header.affine] += 1
        self.images += header.count if header.count is not None else 1
        self.answers = known.answers
        if header.note:
            self.notes[header.note] += 1

    def measure(self, image: np.ndarray) -> None:
        if image.dtype.kind == "f":
            finite = image[np.isfinite(image)]
            self.holes += int(finite.size < image.size)
            if finite.size == 0:
                return
            image = finite
        self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))


@dataclass(frozen=True)
class Survey:
    """What was found in the whole data.

    Args:
        problems: files that cannot be read.
    """

    layout: Layout
    sources: dict[str, SourceSurvey]
    problems: list[Problem]


def survey(layout: Layout, settings: OwnSettings | None, tell: Tell, *, every_value: bool = True) -> Survey:
    """Look at every file.

    Args:
        settings: of sources that are described already; the others are looked at as they are.
        every_value: read all values, which finds damaged files; else only those of files whose header does not say
            their range.
    """
    found = {name: SourceSurvey(origin) for name, origin in layout.origins.items()}
    problems = list(layout.problems)
    with opened_files() as files:
        for done, holding in enumerate(layout.holdings):
            tell("looking at the files", done, len(layout.holdings))
            described = settings.sources[holding.source] if settings else _undescribed(layout, holding)
            seen = found[holding.source]
            seen.files += 1
            try:
                _look(files, holding, described, seen, every_value)
            except UnreadableError as error:
                problems.append(Problem(holding.source, where_of(layout, holding), str(error)))
    tell("looking at the files", len(layout.holdings), len(layout.holdings))
    return Survey(layout, found, problems)


def where_of(layout: Layout, holding: Holding) -> str:
    """A file as people call it: within the data folder."""
    try:
        where = holding.file.relative_to(layout.root).as_posix()
    except ValueError:
        where = str(holding.file)
    return where if holding.member is None else f"{where}:{holding.member}"


def _undescribed(layout: Layout, holding: Holding) -> SourceSettings:
    origin = layout.origins[holding.source]
    return SourceSettings(path=origin.path, array=origin.array, shape=(1,), file_range=(0.0, 1.0))


def _look(files: Files, holding: Holding, settings: SourceSettings, seen: SourceSurvey, every_value: bool) -> None:
    header = header_of(files, holding, settings)
    file, known = files.open(holding)
    measured = header.dtype == "uint8"
    if every_value or not measured:
        for image in read_images(file, known, Reading(**{**vars(settings.reading()), "size": None})):
            seen.measure(image)
    seen.count(header, known)
    rows_of(holding, settings, header)  # refuses what cannot be cut into tiles


def propose(found: Survey) -> OwnSettings:
    """Settings under which the files, or most of them, fit; sizes that differ stay an error where most agree."""
    drawings = {name: bool(seen.notes["drawing"]) for name, seen in found.sources.items()}
    sizes = [
        seen.shapes.most_common(1)[0][0]
        for name, seen in found.sources.items()
        if seen.shapes and not drawings[name] and len(seen.shapes.most_common(1)[0][0]) == 3
    ]
    drawn_at = sizes[0][1:] if sizes and max(sizes[0][1:]) <= LARGEST_SIDE else (64, 64)
    sources = {}
    for name, seen in found.sources.items():
        if not seen.shapes:
            raise DataError(f"Source {name!r}: none of its files can be read; the first: {_first(found, name)}")
        if seen.holes and seen.low > seen.high:
            raise DataError(f"Source {name!r}: all its numbers are NaN.")
        sources[name] = _proposed(seen, drawn_at if drawings[name] else None)
    return OwnSettings(sources=sources)


def _first(found: Survey, name: str) -> str:
    return next((f"{p.where}: {p.reason}." for p in found.problems if p.source == name), "there is none.")


def _proposed(seen: SourceSurvey, drawn_at: tuple[int, ...] | None) -> SourceSettings:
    dtype = seen.dtypes.most_common(1)[0][0]
    channels = Counter({shape[0]: 0 for shape in seen.shapes})
    for shape, count in seen.shapes.items():
        channels[shape[0]] += count
    shape, agreeing = seen.shapes.most_common(1)[0]
    extra: dict[str, Any] = {}
    if drawn_at is not None:
        shape, extra = (channels.most_common(1)[0][0], *drawn_at), {"fit": "contain", "fill": 255}
    elif len(shape) == 3:
        if agreeing < COMMON_SHARE * sum(seen.shapes.values()):
            shape = (channels.most_common(1)[0][0], PROPOSED_SIDE, PROPOSED_SIDE)
            extra = {"fit": "cover"}
        elif max(shape[1:]) > LARGEST_SIDE:
            factor = PROPOSED_SIDE / max(shape[1:])
            shape, extra = (shape[0], *(max(8, round(side * factor)) for side in shape[1:])), {"fit": "resize"}
    affine = seen.affines.most_common(1)[0][0] if len(seen.affines) == 1 else None
    if seen.holes:
        extra["nan"] = seen.low
    return SourceSettings(
        path=seen.origin.path,
        array=seen.origin.array,
        shape=shape,
        file_range=_range(seen, dtype),
        format=seen.answers,
        dtype=dtype,
        affine=affine,
        **extra,
    )


def _range(seen: SourceSurvey, dtype: str) -> tuple[float, float]:
    """8 bits: all of them; 16 bits: the usual bit depth that holds them; floats: [0, 1] or [-1, 1] if they fit, else
    what was found."""
    if dtype == "uint8":
        return 0.0, 255.0
    low, high = (seen.low, seen.high) if seen.low <= seen.high else (0.0, 1.0)
    if dtype == "uint16":
        return 0.0, float(next(depth for depth in BIT_DEPTHS if high <= depth))
    if dtype.startswith("float"):
        for ends in ((0.0, 1.0), (-1.0, 1.0)):
            if ends[0] <= low and high <= ends[1]:
                return ends
    return low, high if high > low else low + 1.0


def summary(found: Survey, settings: OwnSettings) -> dict[str, Any]:
    """What was found, for people and machines."""
    sources = {}
    for name, seen in found.sources.items():
        described = settings.sources[name]
        sources[name] = {
            "path": seen.origin.path,
            "formats": dict(seen.formats),
            "files": seen.files,
            "images": seen.images,
            "sizes": _counted({"x".join(map(str, reversed(shape[1:]))): n for shape, n in seen.shapes.items()}),
            "channels": _counted({str(shape[0]): n for shape, n in seen.shapes.items()}),
            "numbers": dict(seen.dtypes),
            "range": [seen.low, seen.high] if seen.low <= seen.high else None,
            "files_with_nan": seen.holes,
            "notes": dict(seen.notes),
            "shape": list(described.shape),
            "fit": described.fit,
        }
    return {
        "root": str(found.layout.root),
        "layout": found.layout.kind,
        "sources": sources,
        "ignored": found.layout.ignored,
    }


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(counts).most_common(8))
