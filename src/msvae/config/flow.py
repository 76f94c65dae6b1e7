"""The settings of the shared-latent flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from msvae.config.base import Settings

#: Of `FlowConfig`: what `content="scene"` stands for, where nothing else is said.
SCENE_SETTINGS = {"aligned": True, "grid": 4, "side": 16, "channels": 8, "patch": 4, "renderer_width": 256}

#: Of the renderer's tokens: each is some cells of a map, where one vector (`renderer_width` 512) is all of it.
TOKEN_WIDTH = 128

Scale = Annotated[float, Field(ge=0.0, le=20.0)]
StageName = Literal["sources", "code", "converter", "renderer", "alignment"]


class FlowConfig(Settings):
    """The shared-latent flow (see docs/flow.md).

    Args:
        method: `flow`.
        content: what the sources of a row share: a `class` (a digit in several handwritings), or a `scene` that all of
            them show pixel by pixel (T1 and T2): other defaults for `aligned`, `grid` and sizes (`SCENE_SETTINGS`).
            `auto` asks the training rows (`msvae.training.content_kind`); without any it is `class`.
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
            of the renderer (width 512, as tokens 128).
        patch: side of the square of latent cells that make a token of the renderer, which is a Transformer then; None
            takes the whole map as one vector, through a residual MLP. Where it is not chosen, content on a grid and
            budgets of 10 minutes or more have tokens (`msvae.training.renderer_kind`).
        normalised_attention: whether the tokens of the renderer (`patch`; where it is not chosen, 1 then, or 4 of
            scenes) have queries and keys of one length, without which wide ones (192) can diverge in long trainings.
        sampler, sampler_components: what is fitted to the codes of training rows at the end of their stage, to draw
            codes from nothing: a `mixture` of so many Gaussians (0 for none), `flow` (a normalizing flow, extra
            `flows`), or `none`: the converter given nothing, which is this model's prior. Content on a grid has none.
        aligned, aligned_width: for sources that show one scene pixel by pixel: whether answers to given sources are
            drawn on what these show (`msvae.flow.alignment`), and channels of the largest maps of that U-Net.
        favoured: of scenes: questions that the last stage is asked more often, each with its share of the rows, such as
            `{"t1+t2->tissue": 0.5}`; the other rows are asked any.
        dropped: share of rows that the renderer sees without their code, for guidance.
        sampled: share of rows on which the renderer sees a code that is drawn, by what draws codes for answers.
        self_distillation: rows that lack sources learn codes that the converter draws itself, in the second half of its
            stage, but not in its first 250 steps, after which it draws badly.
        shares: of the budget (or steps) for the stages `sources`, `code`, `converter`, `renderer` (and `alignment`).
        guidance: how much of what the code adds to the renderer's flow; 1 is unguided. Without a number it is measured
            at the end of training: what makes samples say their codes as well as real images do
            (`msvae.flow.agreement`).
        evidence: how much of what the given sources say counts where codes are drawn; 0 is nothing, 1 as trained. A
            number for all (of the converter guidance; of the mixture the power of each source's likelihood), or
            `{source: number}`, others having 1, where the converter composes its flows given each source alone. Without
            a choice 2 for the converter, 1 for the mixture.
        begins: time of the path from noise (0) to data (1) at which the renderer's guidance begins.
        codes_by: who draws codes given sources: the `converter`, or the `mixture` (of `sampler`) in closed form, each
            source being a Gaussian observation of the code. Without a choice it is whichever comes nearer to the codes
            of training rows at the end of the converter's stage (`msvae.flow.energy`).
        code_steps, image_steps, early, solver: steps of the two flows; how much shorter the renderer's first steps are
            than its last; `adams` (second order) or `euler` (`msvae.flow.sampler`).
        redraws, doubted: how often a sample is drawn again that says its code worse than this share of the training
            images says theirs (`msvae.flow.agreement`); 0 for never.
        sampling_precision: of the renderer: `fp32`, `bf16`, or `auto`: bf16 where the device is quicker with it.
        reuse: folder of a run of `flow` whose autoencoders, of all sources or some, are taken over; their stage is left
            out.
        extends: folder of a run of `flow` to which the data set's further sources are added: the sizes are that run's,
            and nothing of its own sources is trained again.
        added, trained: the sources that were added so far, and those that are added by this run (set by `extends`).
    """

    method: Literal["flow"] = "flow"
    content: Literal["auto", "class", "scene"] = "auto"
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
    normalised_attention: bool = False
    sampler: Literal["mixture", "flow", "none"] = "mixture"
    sampler_components: int = Field(default=20, ge=0, le=1000)
    aligned: bool = False
    aligned_width: int = Field(default=16, ge=8, le=1024, multiple_of=8)
    favoured: dict[str, Annotated[float, Field(gt=0.0, le=1.0)]] = Field(default_factory=dict)
    dropped: float = Field(default=0.1, ge=0.0, lt=1.0)
    sampled: float = Field(default=0.1, ge=0.0, le=1.0)
    self_distillation: bool = True
    shares: dict[StageName, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    guidance: Scale | None = None
    begins: float = Field(default=0.0, ge=0.0, le=1.0)
    evidence: Scale | dict[str, Scale] | None = None
    codes_by: Literal["converter", "mixture"] | None = None
    code_steps: int = Field(default=8, ge=1, le=1000)
    image_steps: int = Field(default=4, ge=1, le=1000)
    early: float = Field(default=2.3, gt=0.0, le=100.0)
    solver: Literal["adams", "euler"] = "adams"
    redraws: int = Field(default=3, ge=0, le=100)
    doubted: float = Field(default=0.25, ge=0.0, lt=1.0)
    sampling_precision: Literal["auto", "fp32", "bf16"] = "auto"
    reuse: str | None = None
    extends: str | None = None
    added: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_that_follow_from_others(
        cls, values: Any, handler: ModelWrapValidatorHandler[FlowConfig]
    ) -> FlowConfig:
        """Scenes have sizes of their own; content on a grid, and attention, need a renderer of tokens, and those are
        narrow; codes on a grid are too long for a mixture.

        Nobody chose these: they do not count among `model_fields_set`.
        """
        if not isinstance(values, Mapping):
            return handler(values)
        following = dict(values)
        if values.get("content") == "scene":
            following = {**SCENE_SETTINGS, **following}
        if following.get("grid", 1) != 1:
            following = {"patch": 1, "sampler": "none", **following}
        if following.get("normalised_attention"):
            following = {"patch": 1, **following}
        if following.get("patch") is not None:
            following = {"renderer_width": TOKEN_WIDTH, **following}
        config = handler(following)
        config.model_fields_set.intersection_update(values)
        return config

    @model_validator(mode="after")
    def _settings_go_together(self) -> FlowConfig:
        if self.grid > 1 and self.patch is None:
            raise ValueError("content on a grid (grid > 1) needs a renderer of tokens: give patch a number")
        if self.normalised_attention and self.patch is None:
            raise ValueError("normalised_attention is that of tokens, and nothing reads it with patch null")
        if self.codes_by == "mixture" and (self.sampler != "mixture" or not self.sampler_components):
            raise ValueError("codes_by mixture needs one: set sampler to mixture, with components")
        if (
            self.sampler != "mixture"
            and self.sampler_components != type(self).model_fields["sampler_components"].default
        ):
            raise ValueError(
                f"sampler_components are a mixture's, and nothing reads them with sampler {self.sampler!r}"
            )
        for question in self.favoured:
            if not all(question.partition("->")):
                raise ValueError(f"favoured: expected given->wanted, such as t1+t2->tissue, got {question!r}")
        if sum(self.favoured.values()) > 1.0 + 1e-9:
            raise ValueError(f"favoured: shares of the rows, at most 1 together, got {sum(self.favoured.values()):g}")
        if not self.aligned and self.content != "auto":
            last = "the last stage of scenes (content=scene, aligned=true)"
            if self.favoured:
                raise ValueError(f"favoured questions are those of {last}")
            if "alignment" in self.shares:
                raise ValueError(f"shares: alignment is {last}")
        for width in (self.converter_width, *([] if self.patch is None else [self.renderer_width])):
            if width % self.heads:
                raise ValueError(f"width {width} of a Transformer is no multiple of its {self.heads} heads")
        return self


#: Of `FlowConfig`: how answers are drawn (`msvae.models.drawing_flow.Sampling`), which may be chosen anew at any time.
SAMPLING_SETTINGS = (
    "guidance",
    "begins",
    "evidence",
    "codes_by",
    "code_steps",
    "image_steps",
    "early",
    "solver",
    "redraws",
    "doubted",
    "sampling_precision",
)
