"""What a command leaves behind: image files, a contact sheet, and a few words or JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from torch import Tensor

    from msvae.source import Source
    from msvae.training.progress import Display


def console() -> "Console":
    """Where people read; JSON goes to standard output alone."""
    from rich.console import Console

    return Console(stderr=True)


def progress(quiet: bool = False) -> "Display":
    from msvae.training.progress import Quiet, display_for

    return Quiet() if quiet else display_for(console())


def say(text: str, answer: Mapping[str, Any], as_json: bool) -> None:
    """Print the answer: as JSON, or in words."""
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(text)


def write_answer(
    out: Path,
    images: Mapping[str, "Tensor"],
    sources: Sequence["Source"],
    names: Sequence[str],
    as_json: bool,
    given: Sequence[str] = (),
    spread: Mapping[str, "Tensor"] | None = None,
    shown_above: Mapping[str, "Tensor"] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `OUT/SOURCE/ROW.png` for every image and `OUT/grid.png` with all of them, and tell so.

    Args:
        images: `{source: (rows, channels, height, width)}`.
        sources: of those images, in their order.
        given: the words of `--given`: no answer is written among the images that they name.
        spread: of drawn answers, written as `OUT/spread.npz`.
        shown_above: given images to repeat at the top of the grid.
    """
    from msvae.data.images import write_images
    from msvae.data.own.folders import SPREAD_FILE
    from msvae.errors import DataError
    from msvae.files import whole_file
    from msvae.reporting.grids import contact_sheet

    pictures = [source for source in sources if source.is_image]
    left_out = [source.name for source in sources if not source.is_image]
    if not pictures:
        raise DataError(f"There is no picture to write: {', '.join(left_out)} are vectors; ask in Python.")
    folders = {(out / source.name).resolve() for source in pictures}
    for path in (Path(text.partition("=")[2]) for text in given if "=" in text):
        beside_grid = out.resolve() == (path.resolve().parent if path.is_file() else path.resolve())
        if beside_grid or folders & {path.resolve(), path.resolve().parent}:
            raise DataError(f"--out {out}: answers would replace the given images of {path}. Choose another folder.")
    written: list[str] = []
    for source in pictures:
        written += [str(path) for path in write_images(out / source.name, images[source.name], source, names)]
    known = {source.name: source for source in pictures}
    shown = {source.name: images[source.name] for source in pictures}
    above = {f"{name} (given)": tensor for name, tensor in (shown_above or {}).items() if name in known}
    sheet = contact_sheet({**above, **shown}, {**{f"{name} (given)": known[name] for name in known}, **known})
    try:
        with whole_file(out / "grid.png") as partial:
            sheet.save(partial)
    except OSError as error:
        raise DataError(f"Cannot write {out / 'grid.png'}: {error.strerror or error}.") from None
    told = dict(extra or {})
    if spread:
        told["spread"] = str(out / SPREAD_FILE)
        write_arrays(out / SPREAD_FILE, {name: values.numpy() for name, values in spread.items()})
    if left_out:
        console().print(f"Left out, since they are vectors: {', '.join(left_out)}")
    say(
        f"{len(written)} images in {out}, all of them in {out / 'grid.png'}",
        {"out": str(out), "grid": str(out / "grid.png"), "files": written, **told},
        as_json,
    )


def write_arrays(out: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """An .npz file that appears whole or not at all."""
    import numpy as np

    from msvae.errors import DataError
    from msvae.files import whole_file

    try:
        with whole_file(out) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise DataError(f"Cannot write {out}: {error.strerror or error}.") from None
