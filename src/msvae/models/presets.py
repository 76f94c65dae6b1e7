"""Methods by name: each a short composition of the axes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msvae.errors import ConfigError, unknown


@dataclass(frozen=True)
class Method:
    """A named composition and what a user should know before choosing it.

    Args:
        summary: one line for tables.
        settings: the fields of `ModelConfig` that make the method.
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
    partial_rows: bool = True


METHODS: dict[str, Method] = {
    "single": Method(
        summary="M independent single-source VAEs: the baseline of every joint model",
        settings={"fusion": "separate", "subsets": "present", "objective": "elbo"},
        paper="Kingma & Welling, arXiv 1312.6114",
        year=2013,
        cost="M encodes, M decodes",
        limits="no conversion: sources know nothing of each other",
    ),
    "poe": Method(
        summary="product of experts; the code comes from a random subset of the sources in each step",
        settings={"fusion": "poe", "subsets": "random"},
        paper="Wu & Goodman, arXiv 1802.05335",
        year=2018,
        cost="M encodes, M decodes",
        limits="an overconfident source outvotes the others",
    ),
    "moe": Method(
        summary="mixture of experts; one source speaks for all in each step",
        settings={"fusion": "moe", "subsets": "present"},
        paper="Shi et al., arXiv 1911.03393",
        year=2019,
        cost="M encodes, M decodes",
        limits="more given sources do not sharpen the answer",
    ),
    "mopoe": Method(
        summary="mixture of products of experts over all subsets",
        settings={"fusion": "mopoe", "subsets": "present"},
        paper="Sutter et al., arXiv 2105.02470",
        year=2021,
        cost="M encodes, M decodes, 2^M products",
        limits="at most 16 sources; averages what sources do not share",
    ),
    "barycenter": Method(
        summary="Wasserstein barycenter of the experts of a random subset",
        settings={"fusion": "barycenter", "subsets": "random"},
        paper="arXiv 2412.20487",
        year=2024,
        cost="M encodes, M decodes",
        limits="more given sources do not narrow the posterior",
    ),
}


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: naming the known methods and the nearest one.
    """
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    return METHODS[name]


def with_method(model_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Model settings completed by their method's: what the user set stays."""
    name = model_settings.get("method", "mopoe")
    return {**method_named(name).settings, "method": name, **model_settings}
