"""Random changes of training rows: one geometric transform per row, the same in all its sources; photometric changes
for each source by itself.

A transform is an affine map A of the frame [-1, 1]^2 that all sources of a row share, x_source(u) -> x_source(A u), so
that sources of different sizes stay aligned. Class numbers are moved by the nearest neighbour and never brightened.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.config import AugmentConfig
from msvae.source import Source, SourceBatch


def augmented(
    batch: SourceBatch, sources: Sequence[Source], config: AugmentConfig, generator: Generator
) -> SourceBatch:
    """The batch with random changes, drawn from the generator; the batch itself where nothing is switched on.

    Args:
        generator: on the batch's device; what is drawn depends on nothing else.
    """
    images = [source for source in sources if source.is_image and source.name in batch.values]
    if not images or not changes_anything(config):
        return batch
    values = dict(batch.values)
    if any((config.flip_horizontal, config.flip_vertical, *_warps(config))):
        maps = random_maps(len(batch), images[0].shape[1] / images[0].shape[2], config, generator)
        only_flips = not any(_warps(config))
        for source in images:
            move = flipped if only_flips else moved
            values[source.name] = move(values[source.name], maps, source)
    if any((config.brightness, config.contrast, config.noise)):
        for source in images:
            if source.categories is None:
                values[source.name] = recoloured(values[source.name], source, config, generator)
    return SourceBatch(values, batch.present)


def changes_anything(config: AugmentConfig) -> bool:
    """Whether any change is switched on."""
    return any(config.model_dump().values())


def _warps(config: AugmentConfig) -> tuple[float, ...]:
    return config.shift, config.rotate, config.scale, config.crop


def random_maps(rows: int, aspect: float, config: AugmentConfig, generator: Generator) -> Float[Tensor, "rows 2 3"]:
    """A = [flip] . [zoom and rotation] + [shift], one per row; the identity where nothing is switched on.

    Args:
        aspect: height / width of the frame, in which a rotation keeps right angles.
    """

    def draw() -> Tensor:
        return torch.rand(rows, generator=generator, device=generator.device)

    mirror_x = torch.where(draw() < config.flip_horizontal, -1.0, 1.0)
    mirror_y = torch.where(draw() < config.flip_vertical, -1.0, 1.0)
    angle = (2 * draw() - 1) * math.radians(config.rotate)
    zoom = torch.exp((2 * draw() - 1) * math.log1p(config.scale))
    kept = 1 - draw() * config.crop
    room = 1 - kept  # where the cropped window may lie
    shift_x = (2 * draw() - 1) * (2 * config.shift) + (2 * draw() - 1) * room
    shift_y = (2 * draw() - 1) * (2 * config.shift) + (2 * draw() - 1) * room
    size = kept / zoom
    cosine, sine = size * angle.cos(), size * angle.sin()
    first = torch.stack([cosine * mirror_x, -sine * aspect * mirror_y, shift_x], dim=1)
    second = torch.stack([sine / aspect * mirror_x, cosine * mirror_y, shift_y], dim=1)
    return torch.stack([first, second], dim=1)


def moved(
    images: Float[Tensor, "rows channels height width"], maps: Float[Tensor, "rows 2 3"], source: Source
) -> Float[Tensor, "rows channels height width"]:
    """The images seen through the maps; beyond its border an image goes on with its border's values.

    The places are kept within the centres of the border's values here, since `padding_mode="border"` is not everywhere.
    """
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    last = 1 - 1 / torch.tensor(images.shape[:1:-1], device=grid.device)  # across, down
    grid = torch.maximum(torch.minimum(grid, last), -last)
    mode = "nearest" if source.categories is not None else "bilinear"
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def flipped(
    images: Float[Tensor, "rows channels height width"], maps: Float[Tensor, "rows 2 3"], source: Source
) -> Float[Tensor, "rows channels height width"]:
    """As `moved` for maps that only mirror, without any rounding."""
    del source  # values stay what they are
    across, down = (maps[:, axis, axis].lt(0).view(-1, 1, 1, 1) for axis in (0, 1))
    images = torch.where(across, images.flip(3), images)
    return torch.where(down, images.flip(2), images)


def shifted(images: Tensor, reach: int, generator: Generator | None = None) -> Tensor:
    """All images moved by one random shift of up to `reach` pixels, borders repeated."""
    if reach == 0 or images.dim() < 4:
        return images
    down, right = torch.randint(0, 2 * reach + 1, (2,), generator=generator, device=images.device).tolist()
    height, width = images.shape[-2:]
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return padded[..., down : down + height, right : right + width]


def recoloured(
    images: Float[Tensor, "rows channels height width"], source: Source, config: AugmentConfig, generator: Generator
) -> Float[Tensor, "rows channels height width"]:
    """x' = mean + contrast (x - mean) + brightness + noise, in shares of the value range and within it."""

    def draw(amount: float) -> Tensor:
        share = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
        return (2 * share - 1) * amount

    values = source.normalise(images)
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    values = mean + (values - mean) * (1 + draw(config.contrast)) + draw(config.brightness)
    if config.noise:
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        values = values + config.noise * noise
    return source.denormalise(values.clamp(0, 1))
