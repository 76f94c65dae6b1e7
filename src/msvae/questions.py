"""Everything a person asks a trained model, in Python: the same names as on the command line.

A run is given as its folder, an opened `Run`, or a model. Given images are a `SourceBatch`, or `{source: images}`
with tensors, arrays, or paths of image files and folders. Answers are `{source: images}` in each source's own value
range, on the CPU wherever the model computes them (see `msvae.open_run`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msvae.blending import BLENDS
from msvae.data.images import read_rows
from msvae.errors import ConfigError, SourceError, unknown
from msvae.evaluation.flow_likelihood import likelihood_bound
from msvae.evaluation.likelihood import log_likelihood
from msvae.models.base import Features, Mode, MultiSourceModel, Weights, check_mode
from msvae.models.joint import JointVAE
from msvae.models.masked_diffusion import MaskedDiffusion
from msvae.models.shared_flow import SharedFlow
from msvae.source import Source, SourceBatch, check_batch, source_named
from msvae.training.opening import Run, open_run

Asked = str | Path | Run | MultiSourceModel
Given = SourceBatch | Mapping[str, Tensor | np.ndarray | str | Path]
Images = dict[str, Tensor]


def model_of(run: Asked) -> MultiSourceModel:
    """The model behind a run folder, an opened run, or a model itself."""
    if isinstance(run, MultiSourceModel):
        return run
    return run.model if isinstance(run, Run) else open_run(run).model


def as_batch(given: Given, sources: Sequence[Source]) -> SourceBatch:
    """Given images as a checked batch; one image without a row axis becomes one row.

    Raises:
        SourceError, DataError: naming the source, what was expected and what came.
    """
    if not isinstance(given, SourceBatch | Mapping):
        raise SourceError(f"Expected a SourceBatch or {{source: images}}, got {type(given).__name__}.")
    if isinstance(given, SourceBatch):
        check_batch(given, sources, allow_empty_rows=True)
        return SourceBatch({name: values.float() for name, values in given.values.items()}, given.present)
    if not given:
        raise SourceError("No image is given; name at least one source.")
    for name in given:
        source_named(sources, name)
    if all(isinstance(value, str | Path) for value in given.values()):
        return read_rows({name: Path(str(value)) for name, value in given.items()}, sources)[0]
    values: Images = {}
    for name, value in given.items():
        if isinstance(value, str | Path):
            raise SourceError(f"Source {name!r}: give paths for all sources, or arrays for all.")
        if isinstance(value, np.ndarray):  # of any strides and byte order
            value = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise SourceError(f"Source {name!r}: expected images as a tensor or an array, got {type(value)}.") from None
        if tensor.is_floating_point():
            tensor = tensor.float()
        if not tensor.dim():
            raise SourceError(f"Source {name!r}: expected images as a tensor or an array, got the number {value}.")
        values[name] = tensor[None] if tuple(tensor.shape) == source_named(sources, name).shape else tensor
    batch = SourceBatch.complete(values)
    check_batch(batch, sources)
    return batch


def reconstruct(run: Asked, given: Given, mode: Mode = "mean", seed: int = 0) -> Images:
    """The given images as the model sees them: encoded together and drawn again."""
    model = model_of(run)
    batch = as_batch(given, model.sources)
    return model.sample(batch, batch.names, mode=mode, generator=_generator(model, seed)).to("cpu").values


def convert(
    run: Asked,
    given: Given,
    to: str | Sequence[str] | None = None,
    n: int = 1,
    mode: Mode = "mean",
    seed: int = 0,
) -> Images:
    """The same things as other sources would show them.

    Args:
        to: the wanted sources; by default all that are not given.
        n: answers for each row, in succession.
        mode: `mean`: the image of the expected code; `sample`: the code is drawn, and what it leaves open.
    """
    model = model_of(run)
    batch = as_batch(given, model.sources)
    wanted = model.wanted(to) if to is not None else [name for name in model.source_names if name not in batch.names]
    if not wanted:
        raise SourceError("All sources are given; name the wanted ones (to).")
    return model.sample(batch, wanted, n=n, mode=mode, generator=_generator(model, seed)).to("cpu").values


def fuse(
    run: Asked,
    given: Given,
    weights: Weights | None = None,
    by: str | None = None,
    to: str | Sequence[str] | None = None,
    mode: Mode = "mean",
    seed: int = 0,
) -> Images:
    """Images of several sources made into one, by weights.

    Args:
        weights: `{source: weight >= 0}`; only ratios count, equal when None. Weight 0 removes a source exactly; a
            one-hot weight reproduces it in image space, and in latent space is the rule's answer to that source alone.
        by: in image space `mean` or `pyramid` (see `msvae.blending`), answered as `{"fused": images}`; in latent
            space one of the model's `latent_rules` (`product`, `barycenter`, ..), decoded into the sources `to`, all
            by default. Without a choice it is `product`, or `own` where the model has no such rule.
        mode: `mean`: the expected images; `sample`: what the weights leave open is drawn, of latent rules.
    """
    model = model_of(run)
    by = usual_rule(model, "product") if by is None else by
    batch = as_batch(given, model.sources).to("cpu")
    chosen = dict.fromkeys(batch.names, 1.0) if weights is None else weights
    check_mode(mode)
    if by in BLENDS:
        if mode != "mean":
            raise ConfigError(f"A blend in image space ({by}) is not drawn; leave out the mode.")
        if to is not None:
            raise ConfigError(f"A blend in image space ({by}) is an image of its own; leave out what is wanted (to).")
        return {"fused": _blended(model, batch, chosen, by)}
    if by not in model.latent_rules:
        raise ConfigError(unknown("fusion rule", by, [*BLENDS, *model.latent_rules]))
    generator = _generator(model, seed)  # in `mean` of `appearance` in rows without any source alone
    fused = model.sample(batch, model.wanted(to), weights=chosen, mode=mode, rule=by, generator=generator)
    return fused.to("cpu").values


def usual_rule(model: MultiSourceModel, usual: str) -> str:
    """A latent rule for whoever chooses none: the usual one, or how the model itself fuses."""
    return usual if usual in model.latent_rules else "own"


def blended_source(model: MultiSourceModel, weights: Weights) -> Source:
    """The source in whose value range `fuse` answers in image space: the first one with weight."""
    return next(source for source in model.sources if weights.get(source.name, 0.0) > 0)


def _blended(model: MultiSourceModel, batch: SourceBatch, weights: Weights, by: str) -> Tensor:
    vector = model.weight_vector(weights, batch)
    used = [source for source, weight in zip(model.sources, vector, strict=True) if weight > 0]
    shapes = {source.name: source.shape for source in used}
    if len(set(shapes.values())) > 1 or any(not source.is_image or source.categories for source in used):
        raise SourceError(f"Blending in image space needs images of one shape, and no class numbers; got {shapes}.")
    for source in used:
        if not bool(batch.present[source.name].all()):
            raise SourceError(f"Source {source.name!r} is absent from some rows; blending needs it in all.")
    stack = torch.stack([source.normalise(batch.values[source.name]) for source in used])
    return blended_source(model, weights).denormalise(BLENDS[by](stack, vector[vector > 0]))


def interpolate(
    run: Asked,
    start: Given,
    end: Given,
    steps: int = 8,
    to: str | Sequence[str] | None = None,
    mode: Mode = "mean",
    seed: int = 0,
) -> Images:
    """A straight walk in the code from one row to another, `steps` images with both ends, for each pair of rows in
    succession.

    To walk between sources of one row, turn the weights of `fuse` (see `weight_path`).

    Args:
        mode: `mean`: the expected images of the codes; `sample`: what they leave open is drawn.
    """
    _refuse_fewer("Interpolation", "steps", steps, 2)
    model = model_of(run)
    with torch.no_grad():
        first, last = (
            model.codes(as_batch(rows, model.sources), 1, None, "mean", "own", None) for rows in (start, end)
        )
        if len(first) != len(last):
            raise SourceError(f"Interpolation: {len(first)} rows at the start, {len(last)} at the end.")
        share = torch.linspace(0, 1, steps, device=first.device)[None, :, None]
        codes = torch.lerp(first[:, None, :], last[:, None, :], share)
        generator = _generator(model, seed)
        return model.decode(codes.flatten(0, 1), model.wanted(to), mode, generator).to("cpu").values


def weight_path(names: Sequence[str], steps: int = 9) -> list[dict[str, float]]:
    """Weights that walk from the first source over the others to the last.

    One-hot at every source if `steps` - 1 is a multiple of their number - 1, else at the two ends.
    """
    if len(names) < 2 or steps < len(names):
        raise ConfigError(
            f"A path of weights needs two sources or more and a step for each; got {names}, {steps} steps."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"A path of weights passes each source once; got {', '.join(names)}.")
    path = []
    for position in torch.linspace(0, len(names) - 1, steps).tolist():
        path.append({name: max(0.0, 1.0 - abs(position - index)) for index, name in enumerate(names)})
    return path


def generate(
    run: Asked, n: int = 16, to: str | Sequence[str] | None = None, from_prior: bool = False, seed: int = 0
) -> Images:
    """New rows from nothing, the same thing in every source.

    Args:
        from_prior: draw from the prior that the model was trained with, not from the sampler fitted after training.
    """
    _refuse_fewer("Generation", "n", n, 1)
    model = model_of(run)
    with torch.no_grad():
        generator = _generator(model, seed)
        code = model.draw(n, generator, from_prior=from_prior)
        return model.decode(code, model.wanted(to), "sample", generator).to("cpu").values


@dataclass(frozen=True)
class Imputed:
    """Rows made whole.

    Args:
        images: `{source: (rows, *shape)}`; what was present is unchanged, bit for bit.
        spread: `{source: (rows, *shape)}` standard deviation over the drawn answers, 0 where present; None for one
            answer.
        filled: `{source: (rows,) bool}`, which images were absent and are the model's.
    """

    images: Images
    spread: Images | None
    filled: dict[str, Tensor]


def impute(run: Asked, given: Given, n: int = 1, seed: int = 0) -> Imputed:
    """Fill in the sources that rows lack, each from all that the row has.

    Args:
        n: 1: the expected images; more: the mean of so many drawn answers (the most frequent class
            of class numbers), with their per-pixel spread.
    """
    model = model_of(run)
    batch = as_batch(given, model.sources).to("cpu")
    mode: Mode = "mean" if n == 1 else "sample"
    answers = model.sample(batch, n=n, mode=mode, generator=_generator(model, seed)).to("cpu").values
    images: Images = {}
    spread: Images = {}
    absent = ~batch.presence(model.source_names)
    for source, missing in zip(model.sources, absent, strict=True):
        drawn = answers[source.name].unflatten(0, (len(batch), n))
        at = missing.view(-1, *[1] * len(source.shape))
        known = batch.values.get(source.name, torch.zeros_like(drawn[:, 0]))
        answer = drawn.mode(dim=1).values if source.categories else drawn.mean(dim=1)
        images[source.name] = torch.where(at, answer, known)
        if n > 1:
            spread[source.name] = drawn.std(dim=1) * at
    filled = {source.name: missing for source, missing in zip(model.sources, absent, strict=True)}
    return Imputed(images, spread or None, filled)


def features(run: Asked, given: Given) -> Features:
    """Pooled vector and spatial maps of the given images, for other models to read."""
    model = model_of(run)
    with torch.no_grad():
        found = model.features(as_batch(given, model.sources))
    return Features(found.pooled.cpu(), {name: maps.cpu() for name, maps in found.maps.items()})


def likelihood(run: Asked, given: Given, samples: int = 100, seed: int = 0) -> Tensor:
    """log p of the given images together, in nats for each row: a lower bound in expectation. The density is that of
    images normalised to [0, 1], whatever the sources' value ranges.

    Args:
        samples: codes drawn for each row. For a joint VAE they are importance-weighted, and the bound tightens with
            them (see `log_likelihood`); for the flow they are averaged (see `likelihood_bound`; slow).

    Raises:
        ConfigError: for fewer than one sample, or a model with parts of unknown density: `mld`'s diffusion, the
            alignment of scenes, and the flow's simpler parts (`model.converter=product`, `model.renderer=mean`).
    """
    model = model_of(run)
    batch, generator = as_batch(given, model.sources), _generator(model, seed)
    if isinstance(model, JointVAE) and not isinstance(model, MaskedDiffusion):
        return log_likelihood(model, batch, samples, generator=generator).cpu()
    if isinstance(model, SharedFlow) and model.has_density:
        return likelihood_bound(model, batch, samples, generator=generator).cpu()
    raise ConfigError(
        "The likelihood is known for joint VAEs but `mld`, and for the flow with both of its flows and without the "
        "stage `alignment` (content: class)."
    )


def _refuse_fewer(what: str, name: str, count: int, least: int) -> None:
    if not isinstance(count, Integral) or count < least:
        raise ConfigError(f"{what}: expected a whole number {name} >= {least}, got {count!r}.")


def _generator(model: MultiSourceModel, seed: int) -> torch.Generator:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"Seed: expected a number from 0 to {2**32 - 1}, got {seed}.")
    return torch.Generator(model.device).manual_seed(seed)
