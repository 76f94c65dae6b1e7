"""Every setting of a run: typed, bounded, with defaults, saved beside the weights. A misspelt key names the nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from msvae.errors import ConfigError, unknown


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Settings):
    """Which rows to train on.

    Args:
        name: a built-in set, or the path of your own data (see `docs/data.md`).
        options: what that set can be told (see `msvae data info NAME`).
        sources: only these sources; all when None.
        missing: share of the sources removed at random from training rows; every row keeps one.
        missing_seed: seed of that removal.
    """

    name: str = "colours"
    options: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[str, ...] | None = Field(default=None, min_length=1)
    missing: float = Field(default=0.0, ge=0.0, lt=1.0)
    missing_seed: int = 0


class ModelConfig(Settings):
    """The parts a joint VAE is made of.

    Args:
        method: the preset the parts came from (see `msvae methods`).
        latent: length of the code that sources share (with the fusion `separate`: of each source's own).
        private: length of the code that only its own source has, beside the shared one.
        fusion, prior_expert: how experts become one posterior (see `msvae.fusion`), and whether products count the
            prior as an expert.
        dependence: correlation of the experts' errors; read by the fusion `consensus`.
        objective: the training objective (see `msvae.objectives`).
        beta: weight of the KL terms.
        subsets: of `elbo`: `present`: the code comes from all present sources; `random`: from a random subset of
            them, while all present ones are scored.
        extra_subsets: of `subsampled`: random subsets a step, beside all sources and every single one.
        samples, gradient: of `iwae`: codes K drawn for each source, and the gradient's estimator, `iwae` or `dreg`.
        decodes: of objectives that decode every source from every source's code: `all`, or one `drawn` at random for
            each, an unbiased estimate.
        alpha: of `mvtcae`: weight of the agreement with single sources against the prior.
        alignment: of `jmvae`: weight of the agreement of single sources with the joint encoder.
        anneal: of `mmvm`: share of the training during which sources move from the prior to each other.
        contrast, contrast_temperature: weight of the contrast between the sources' codes (InfoNCE), 0 for none.
        prior, prior_components: `standard`, `learned_scale` or `mixture` of so many learned Gaussians.
        networks, width, shared_trunk: see `msvae.networks`.
        likelihood_scaling: balance between sources of unequal size: `largest`, `none` or a factor per source.
        sampler: what is fitted to the codes of training rows after training, for generation: `mixture` of Gaussians,
            `flow` (a normalizing flow; needs the extra `flows`) or `none`; `masked_diffusion` belongs to the method
            `mld`.
        sampler_components: Gaussians of that mixture; 0 uses the prior.
    """

    method: str = "mopoe"
    latent: int = Field(default=32, ge=1, le=4096)
    private: int = Field(default=0, ge=0, le=4096)
    fusion: str = "mopoe"
    prior_expert: bool = True
    dependence: float = Field(default=0.5, ge=0.0, lt=1.0)
    objective: str = "elbo"
    beta: float = Field(default=1.0, ge=0.0)
    subsets: Literal["present", "random"] = "present"
    extra_subsets: int = Field(default=1, ge=0, le=100)
    samples: int = Field(default=1, ge=1, le=1000)
    gradient: Literal["iwae", "dreg"] = "iwae"
    decodes: Literal["all", "drawn"] = "all"
    alpha: float = Field(default=5 / 6, ge=0.0, le=1.0)
    alignment: float = Field(default=0.1, ge=0.0)
    anneal: float = Field(default=0.5, ge=0.0, le=1.0)
    contrast: float = Field(default=0.0, ge=0.0)
    contrast_temperature: float = Field(default=0.1, gt=0.0)
    prior: str = "standard"
    prior_components: int = Field(default=40, ge=1, le=1000)
    networks: str = "conv"
    width: int = Field(default=32, ge=1, le=1024)
    shared_trunk: bool = False
    likelihood_scaling: str | dict[str, float] = "largest"
    sampler: str = "mixture"
    sampler_components: int = Field(default=20, ge=0, le=1000)


class AugmentConfig(Settings):
    """Random changes of training rows; all off by default. See `msvae.data.augment`.

    The geometric ones are drawn once a row and done to all its sources; the photometric ones once a row and source.

    Args:
        flip_horizontal, flip_vertical: probability of a mirrored row.
        shift: largest shift, as a share of the side.
        rotate: largest angle, in degrees.
        scale: largest change of size: factors from 1 / (1 + scale) to 1 + scale.
        crop: largest share of the side that is cut away; the rest is enlarged to the full size.
        brightness: largest number added, as a share of the value range.
        contrast: factors from 1 - contrast to 1 + contrast, about the image's mean.
        noise: standard deviation of Gaussian noise, as a share of the value range.
    """

    flip_horizontal: float = Field(default=0.0, ge=0, le=1)
    flip_vertical: float = Field(default=0.0, ge=0, le=1)
    shift: float = Field(default=0.0, ge=0, le=0.5)
    rotate: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, le=1)
    crop: float = Field(default=0.0, ge=0, le=0.9)
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)


#: Of `FlowConfig`: what `content="scene"` stands for, where nothing else is said.
SCENE_SETTINGS = {"aligned": True, "grid": 4, "side": 16, "channels": 8, "patch": 4, "renderer_width": 256}


class FlowConfig(Settings):
    """The shared-latent flow (see docs/flow.md).

    Args:
        method: `flow`.
        content: what the sources of a row share: a `class` (a digit in several handwritings), or a `scene` that all of
            them show pixel by pixel (T1 and T2): other defaults for `aligned`, `grid` and sizes (`SCENE_SETTINGS`).
        channels, side: latents of a source: a map with that many channels and at most that many cells a side.
        width, refine, shared_trunk: of the autoencoders: channels of the first map, residual blocks at each size, and
            whether sources of equal form share their networks, each with its own FiLM.
        noise: standard deviation of the autoencoders' posterior, in units of the latents' own.
        edges, even_contrast: see `msvae.flow.autoencoders`.
        grain: whether samples get the noise that no training image of the source is free of (`msvae.flow.grain`).
        code, grid: numbers of a token of the shared code, and side of the grid of tokens: 1 for class-like content,
            more (4 or 8) where it matters what is where.
        content_width, shift: channels of the first map of the code's encoders, pixels that images move by at random.
        contrast, prediction, detached: weights of the two terms that the shared code is learned by, and whether a
            source's latents are predicted from the codes of the others alone (target-detached) or from all.
        converter, renderer: `flow`, or what the flows are compared with: a `product` of Gaussians around the sources'
            codes, with N(0, I) for nothing given; a `mean` image for each code, without a private part.
        converter_width, converter_depth, renderer_width, renderer_depth, heads: of the converter, a Transformer, and
            of the renderer.
        patch: side of the square of latent cells that make a token of the renderer, which is a Transformer then; None
            (the default for one token of content) takes the whole map as one vector, through a residual MLP.
        aligned, aligned_width: for sources that show one scene pixel by pixel: whether answers to given sources are
            drawn on what these show (`msvae.flow.alignment`), and channels of the largest maps of that U-Net.
        dropped: share of rows that the renderer sees without their code, for guidance.
        sampled: share of rows on which the renderer sees a code drawn by the converter.
        self_distillation: rows that lack sources learn codes that the converter draws itself, in the second half.
        shares: of the budget (or steps) for the stages `sources`, `code`, `converter`, `renderer` (and `alignment`).
        guidance, evidence: how much of what the code adds to the renderer's flow, and of what the given sources add to
            the converter's; 1 is unguided. Without a number for guidance, it is measured at the end of training: what
            makes samples say their codes as well as real images do (`msvae.flow.agreement`).
        begins: time of the path from noise (0) to data (1) at which the renderer's guidance begins.
        code_steps, image_steps, early: Euler steps of the two flows; how much shorter the renderer's first steps are
            than its last (`msvae.flow.sampler.step_times`).
        redraws, doubted: how often a sample is drawn again that says its code worse than this share of the training
            images says theirs (`msvae.flow.agreement`); 0 for never.
        sampling_precision: of the renderer: `fp32`, `bf16`, or `auto`: bf16 where the device computes it natively.
        reuse: folder of a run of `flow` whose autoencoders are taken over; their stage is left out.
        extends: folder of a run of `flow` to which the data set's further sources are added: the sizes are that run's,
            and nothing of its own sources is trained again.
        added, trained: the sources that were added so far, and those that are added by this run (set by `extends`).
    """

    method: Literal["flow"] = "flow"
    content: Literal["class", "scene"] = "class"
    channels: int = Field(default=16, ge=1, le=256)
    side: int = Field(default=4, ge=1, le=32)
    width: int = Field(default=32, ge=1, le=1024)
    refine: int = Field(default=0, ge=0, le=8)
    shared_trunk: bool = True
    noise: float = Field(default=0.1, gt=0.0, le=1.0)
    edges: float = Field(default=1.0, ge=0.0)
    even_contrast: bool = True
    grain: bool = True
    code: int = Field(default=32, ge=2, le=1024)
    grid: int = Field(default=1, ge=1, le=16)
    content_width: int = Field(default=32, ge=1, le=1024)
    shift: int = Field(default=2, ge=0, le=32)
    contrast: float = Field(default=1.0, ge=0.0)
    prediction: float = Field(default=0.5, ge=0.0)
    detached: bool = True
    converter: Literal["flow", "product"] = "flow"
    renderer: Literal["flow", "mean"] = "flow"
    converter_width: int = Field(default=128, ge=8, multiple_of=4)
    converter_depth: int = Field(default=3, ge=1, le=64)
    renderer_width: int = Field(default=512, ge=8, multiple_of=4)
    renderer_depth: int = Field(default=4, ge=1, le=64)
    heads: int = Field(default=4, ge=1, le=64)
    patch: int | None = Field(default=None, ge=1, le=32)
    aligned: bool = False
    aligned_width: int = Field(default=32, ge=8, le=1024, multiple_of=8)
    dropped: float = Field(default=0.1, ge=0.0, lt=1.0)
    sampled: float = Field(default=0.1, ge=0.0, le=1.0)
    self_distillation: bool = True
    shares: dict[Literal["sources", "code", "converter", "renderer", "alignment"], float] = Field(default_factory=dict)
    guidance: float | None = Field(default=None, ge=0.0, le=20.0)
    begins: float = Field(default=0.0, ge=0.0, le=1.0)
    evidence: float = Field(default=2.0, ge=0.0, le=20.0)
    code_steps: int = Field(default=20, ge=1, le=1000)
    image_steps: int = Field(default=8, ge=1, le=1000)
    early: float = Field(default=1.7, gt=0.0, le=100.0)
    redraws: int = Field(default=3, ge=0, le=100)
    doubted: float = Field(default=0.25, ge=0.0, lt=1.0)
    sampling_precision: Literal["auto", "fp32", "bf16"] = "auto"
    reuse: str | None = None
    extends: str | None = None
    added: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _scenes_have_defaults_of_their_own(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("content") == "scene":
            return {**SCENE_SETTINGS, **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _content_of_a_grid_needs_tokens(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("grid", 1) != 1 and "patch" not in values:
            return {**values, "patch": 1}
        return values

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> FlowConfig:
        if self.grid > 1 and self.patch is None:
            raise ValueError("content on a grid (grid > 1) needs a renderer of tokens: give patch a number")
        for width in (self.converter_width, self.renderer_width):
            if width % self.heads:
                raise ValueError(f"width {width} of a Transformer is no multiple of its {self.heads} heads")
        return self


#: Of `FlowConfig`: how answers are drawn (`msvae.models.shared_flow.Sampling`), which may be chosen anew at any time.
SAMPLING_SETTINGS = (
    "guidance",
    "begins",
    "evidence",
    "code_steps",
    "image_steps",
    "early",
    "redraws",
    "doubted",
    "sampling_precision",
)


def _family(model: Any) -> str:
    """Which class of settings a model's are, by its method."""
    method = model.get("method") if isinstance(model, Mapping) else getattr(model, "method", None)
    return "shared-flow" if method == "flow" else "joint-vae"


AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("joint-vae")] | Annotated[FlowConfig, Tag("shared-flow")], Discriminator(_family)
]
FAMILIES: dict[str, type[Settings]] = {"joint-vae": ModelConfig, "shared-flow": FlowConfig}


class TrainingConfig(Settings):
    """How to train. One of `budget`, `steps` and `epochs` sets the length; without any, 30 epochs.

    Args:
        budget: seconds of optimiser steps; becomes a number of steps from the speed of the first ones. A run of that
            number of steps is the same run, if the warm-up has at least 30 steps (the speed is measured during it).
        stage_steps: of methods that train in stages: numbers of steps of some of them, whatever the run's length; 0
            leaves a stage out.
        batch_size: rows of one optimiser step.
        accumulation: number of equal parts a batch is computed in, to save memory.
        optimizer: `muon`: orthogonalised momentum for the weights of convolutions and of linear maps that are not
            large, AdamW for all others; or `adamw` for all.
        learning_rate, warmup_steps: linear warm-up, then a cosine to 1 % of the rate.
        ema_decay: decay of the averaged weights, which answer all questions; 0 turns averaging off.
        precision: `fp32`, `bf16` or `fp16`; `auto` takes bf16 where the machine computes it natively. What
            was taken is recorded with the run.
        device: `auto` (the best there is), `cpu`, `cuda` or `mps`.
        gradient_clip: largest gradient norm, or None.
        checkpoint_seconds: time between checkpoints; one more at the end and one on Ctrl-C.
        balance: how much more often rows with rare sources are drawn: with weights max over their sources of
            (1 / share of the rows that have the source)^balance. 0 draws every row once an epoch.
        augment: random changes of training rows.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    budget: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    stage_steps: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    gradient_clip: float | None = Field(default=None, gt=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    balance: float = Field(default=0.0, ge=0, le=1)
    augment: AugmentConfig = AugmentConfig()


class RunConfig(Settings):
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: AnyModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], values: Mapping[str, Any]) -> S:
    """Settings from plain values.

    Raises:
        ConfigError: one line per mistake: the key, what was expected, what came, and the nearest key for a misspelt
            one.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, problem) for problem in error.errors())) from None


def _explain(kind: type[BaseModel], problem: Any) -> str:
    family = next((FAMILIES[part] for part in problem["loc"] if part in FAMILIES), None)
    path = [str(part) for part in problem["loc"] if part not in FAMILIES]
    if problem["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            if part == "model" and family is not None:
                owner = family
            else:
                owner = owner.model_fields[part].annotation if hasattr(owner, "model_fields") else get_args(owner)[-1]
        return unknown("setting", ".".join(path), [".".join([*path[:-1], key]) for key in owner.model_fields])
    return f"Setting {'.'.join(path)!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}."


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file: a mapping with `data`, `model` and `training`."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the settings file {path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(content).__name__}.")
    return content


def merged(base: Mapping[str, Any], *, dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with some settings replaced, named as `training.steps`."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in dotted.items():
        *rooms, last = key.split(".")
        target = result
        for room in rooms:
            target = target.setdefault(room, {})
            if not isinstance(target, dict):
                raise ConfigError(f"Setting {key!r}: {room!r} is not a group of settings.")
        target[last] = value
    return result


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | int | float) -> float:
    """A duration such as `90s`, `10m`, `1.5h` or `90` in seconds.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"Duration {text!r}: expected a number with s, m or h, such as 90s, 10m or 1.5h.")
    return float(match[1]) * _UNITS[match[2] or "s"]
