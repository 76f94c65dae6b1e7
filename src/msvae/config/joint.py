"""The settings of joint VAEs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from msvae.config.base import Settings


def _joint_vae(method: str) -> str:
    if method == "flow":
        raise ValueError("the method 'flow' has settings of its own (FlowConfig)")
    return method


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

    method: Annotated[str, AfterValidator(_joint_vae)] = "mopoe"
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
