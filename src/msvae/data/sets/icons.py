"""Icons: 1512 signs, each in six styles of one family; what differs between sources is only how they are drawn."""

import numpy as np

from msvae.data.fetch import Package
from msvae.data.sets.dividing import divide_groups
from msvae.data.sets.known import SEED, KnownSet, Option, Workshop
from msvae.data.sets.pictures import drawing, on_white
from msvae.source import Source
from msvae.training.progress import tracked

STYLES = ("thin", "light", "regular", "bold", "fill", "duotone")
PHOSPHOR = Package(
    client="npm",
    name="@phosphor-icons/core",
    version="2.1.1",
    members=("package/assets/*/*.svg",),
    sha256="08c60d5d50fc5ce886975d9a94fb760a78a3977d418ed7d501e3de596fbed01a",
    megabytes=1.4,
    licence="MIT, Phosphor Icons",
)


def build(workshop: Workshop, *, size: int, seed: int) -> None:
    """Draw every icon in every style, black on white."""
    files = workshop.read(PHOSPHOR)
    drawn = {style: _by_name(files, style) for style in STYLES}
    names = sorted(set.intersection(*[set(svgs) for svgs in drawn.values()]))
    images = {}
    for style, svgs in drawn.items():
        shown = tracked(names, workshop.display, f"drawing {style}", len(names))
        images[style] = np.stack([on_white(drawing(svgs[name], size))[None, :, :, 0] for name in shown])
    workshop.save(
        [Source(style, (1, size, size), likelihood="laplace", scale=0.1) for style in STYLES],
        images,
        divide_groups([family_of(name) for name in names], np.random.RandomState(seed)),
        columns={"name": np.array([name.replace("-", " ") for name in names])},
        shared_content=False,
    )


def family_of(name: str) -> str:
    """The first word: `arrow-left` and `arrow-up` are one family, and near copies of each other."""
    return name.partition("-")[0]


def _by_name(files: dict[str, bytes], style: str) -> dict[str, str]:
    """`{name: SVG}`; files are `assets/bold/NAME-bold.svg`, and `assets/regular/NAME.svg`."""
    folder, ending = f"package/assets/{style}/", ".svg" if style == "regular" else f"-{style}.svg"
    return {
        path.removeprefix(folder).removesuffix(ending): content.decode()
        for path, content in files.items()
        if path.startswith(folder)
    }


SET = KnownSet(
    name="icons",
    what="1512 icons in six styles (thin, light, regular, bold, fill, duotone), black on white",
    options={"size": Option(64, "pixels a side", 16, 256), "seed": SEED},
    licence="MIT, Phosphor Icons",
    split_rule="by the first word of the icon's name, so that arrow-left and arrow-up are in one split; families are "
    "dealt at random with the seed, 70 % of icons to training, 10 % to validation, 20 % to test",
    build=build,
    packages=(PHOSPHOR,),
    checksum="19546fafe8f06978aae4c7527d63037cdab38cdf682d734bfd4bbd10f933481a",
)
