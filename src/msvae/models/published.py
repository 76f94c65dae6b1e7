"""The published methods: what each is made of, what it costs, and what it is not good at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A named composition and what a user should know before choosing it.

    Args:
        summary: one line for tables.
        settings: the fields of `ModelConfig` that make the method what it is.
        defaults: further fields with the values to start from; other values are still the same method.
        paper, year: where it was published.
        cost: networks run in a step, for M sources.
        partial_rows: whether training rows may lack sources.
        limits: what it is not good at.
    """

    summary: str
    paper: str
    year: int
    cost: str
    limits: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    partial_rows: bool = True


METHODS: dict[str, Method] = {
    "single": Method(
        summary="M independent single-source VAEs: the baseline of every joint model",
        settings={"fusion": "separate", "objective": "elbo", "subsets": "present"},
        paper="Kingma & Welling, arXiv 1312.6114",
        year=2013,
        cost="M encodes, M decodes",
        limits="no conversion: sources know nothing of each other",
    ),
    "poe": Method(
        summary="product of experts; the code comes from a random subset of the sources in each step",
        settings={"fusion": "poe", "objective": "elbo", "subsets": "random"},
        paper="Wu & Goodman, arXiv 1802.05335",
        year=2018,
        cost="M encodes, M decodes",
        limits="an overconfident source outvotes the others",
    ),
    "moe": Method(
        summary="mixture of experts; one source speaks for all in each step",
        settings={"fusion": "moe", "objective": "elbo", "subsets": "present"},
        paper="Shi et al., arXiv 1911.03393",
        year=2019,
        cost="M encodes, M decodes",
        limits="more given sources do not sharpen the answer",
    ),
    "barycenter": Method(
        summary="Wasserstein barycenter of the experts of a random subset",
        settings={"fusion": "barycenter", "objective": "elbo", "subsets": "random"},
        paper="Qiu et al., arXiv 2412.20487",
        year=2024,
        cost="M encodes, M decodes",
        limits="more given sources do not narrow the posterior",
    ),
    "mvae": Method(
        summary="product of experts with the prior; bounds of all sources, of each alone and of random subsets",
        settings={"fusion": "poe", "prior_expert": True, "objective": "subsampled"},
        paper="Wu & Goodman, arXiv 1802.05335",
        year=2018,
        cost="M encodes, (2 + k/2) M decodes",
        limits="weak conversion from few sources: each bound scores its own subset alone",
    ),
    "mmvae": Method(
        summary="mixture of experts; every source drawn from every source's code, importance weighted",
        settings={"fusion": "moe", "objective": "iwae", "private": 0},
        paper="Shi et al., arXiv 1911.03393",
        year=2019,
        cost="M encodes, K M^2 decodes",
        limits="averages what sources do not share; more given sources do not sharpen the answer",
    ),
    "mopoe": Method(
        summary="mixture of products of experts over all subsets",
        settings={"fusion": "mopoe", "objective": "elbo", "subsets": "present"},
        paper="Sutter et al., arXiv 2105.02470",
        year=2021,
        cost="M encodes, M decodes, 2^M products",
        limits="at most 16 sources; averages what sources do not share",
    ),
    "mvtcae": Method(
        summary="product of experts without the prior, asked to agree with every single source",
        settings={"fusion": "poe", "prior_expert": False, "objective": "mvtcae"},
        paper="Hwang et al., NeurIPS 2021",
        year=2021,
        cost="M encodes, M decodes",
        limits="hardly coherent from nothing without a fitted sampler; weak from one source",
    ),
    "crmvae": Method(
        summary="product of experts that agrees with single sources, each of which is also drawn from its own code",
        settings={"fusion": "poe", "prior_expert": False, "objective": "crmvae"},
        paper="Suzuki & Matsuo, CRMVAE",
        year=2023,
        cost="M encodes, 2M decodes",
        limits="weak from one source where sources share little",
    ),
    "mmjsd": Method(
        summary="mixture of experts against a prior that the sources make themselves (Jensen-Shannon)",
        settings={"fusion": "moe", "objective": "mmjsd"},
        paper="Sutter et al., arXiv 2006.08242",
        year=2020,
        cost="M encodes, M decodes",
        limits="averages what sources do not share",
    ),
    "mmvm": Method(
        summary="a code for every source, drawn towards each other; no fusion while training",
        settings={"fusion": "moe", "objective": "mmvm"},
        paper="Sutter et al., arXiv 2403.05300",
        year=2024,
        cost="M encodes, M decodes",
        limits="conversion is never trained, only follows from the alignment of the codes",
    ),
    "jmvae": Method(
        summary="a joint encoder over all sources, with single encoders that follow it",
        settings={"fusion": "joint", "objective": "jmvae"},
        paper="Suzuki et al., arXiv 1611.01891",
        year=2016,
        cost="M encodes, M decodes",
        limits="complete rows only; subsets of several sources fall back to a product",
        partial_rows=False,
    ),
    "telbo": Method(
        summary="a joint encoder, and single encoders trained by bounds of their own with the decoders held",
        settings={"fusion": "joint", "objective": "telbo"},
        paper="Vedantam et al., arXiv 1705.10762",
        year=2018,
        cost="M encodes, 2M decodes",
        limits="complete rows only; single encoders need not agree with the joint one",
        partial_rows=False,
    ),
    "jnf": Method(
        summary="a joint encoder, and normalizing flows of single sources that follow it (needs zuko)",
        settings={"fusion": "joint_flows", "objective": "jnf"},
        paper="Senellart et al., arXiv 2302.03461",
        year=2023,
        cost="M encodes, M decodes, M flows",
        limits="complete rows only; subsets of several sources are answered by 32 particles of each",
        partial_rows=False,
    ),
    "dmvae": Method(
        summary="shared and private codes; each source drawn from the joint code and from each source's",
        settings={"fusion": "poe", "prior_expert": True, "objective": "dmvae"},
        defaults={"private": 32},
        paper="Lee & Pavlovic, arXiv 2012.13024",
        year=2021,
        cost="M encodes, M (M + 1) decodes",
        limits="its own private code is always there, so shared content may hide in it",
    ),
    "mmvae+": Method(
        summary="mixture of experts with private codes; crossed sources are drawn with guarded private codes",
        settings={"fusion": "moe", "objective": "iwae"},
        defaults={"private": 32},
        paper="Palumbo et al., ICLR 2023",
        year=2023,
        cost="M encodes, K M^2 decodes",
        limits="one source speaks for all: more given sources do not sharpen the answer",
    ),
    "cmvae": Method(
        summary="MMVAE+ with a learned mixture of Gaussians as prior: clusters of content",
        settings={"fusion": "moe", "objective": "iwae", "prior": "mixture"},
        defaults={"private": 32, "prior_components": 40},
        paper="Palumbo et al., NeurIPS 2024",
        year=2024,
        cost="M encodes, K M^2 decodes",
        limits="needs content that comes in clusters",
    ),
    "wbvae": Method(
        summary="Wasserstein barycenter of all present experts",
        settings={"fusion": "barycenter", "objective": "elbo", "subsets": "present"},
        paper="Qiu et al., arXiv 2412.20487",
        year=2024,
        cost="M encodes, M decodes",
        limits="answers from subsets are never trained",
    ),
    "mwbvae": Method(
        summary="mixture of the Wasserstein barycenters of all subsets",
        settings={"fusion": "barycenters", "objective": "elbo", "subsets": "present"},
        paper="Qiu et al., arXiv 2412.20487",
        year=2024,
        cost="M encodes, M decodes, 2^M barycenters",
        limits="at most 16 sources; averages what sources do not share",
    ),
    "helvae": Method(
        summary="Hellinger pooling: pairs of sources count as far as they agree",
        settings={"fusion": "hellinger", "objective": "elbo", "subsets": "present"},
        paper="arXiv 2601.06572",
        year=2026,
        cost="M encodes, M decodes, M^2 pairs",
        limits="a wide posterior where sources disagree",
    ),
    "codevae": Method(
        summary="consensus of dependent experts; the bounds of all subsets with learned weights",
        settings={"fusion": "consensus", "prior_expert": False, "objective": "subset_weights"},
        paper="Mancisidor et al., ICML 2025",
        year=2025,
        cost="M encodes, M (2^M - 1) decodes; M with model.decodes=drawn",
        limits="at most 16 sources; costly with all subsets",
    ),
    "mld": Method(
        summary="independent VAEs, then a masked diffusion over their concatenated latents: the two-stage baseline",
        settings={"fusion": "separate", "objective": "elbo", "subsets": "present", "sampler": "masked_diffusion"},
        paper="Bounoua et al., arXiv 2306.04445",
        year=2024,
        cost="two stages: M encodes and M decodes; then M encodes and a Transformer over M tokens",
        limits="all content of all sources has to be modelled together; drawn answers take 20 passes",
    ),
    "flow": Method(
        summary="shared-latent flow: single-source VAEs, one shared code, a Transformer converter; see docs/flow.md",
        paper="docs/flow.md",
        year=2026,
        cost="four stages; a decode and a few passes of a Transformer for each answer",
        limits="sources need rows in common; expected images take one pass, drawn ones many",
    ),
}
