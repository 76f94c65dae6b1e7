"""Methods by name: each a short composition of the axes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msvae.config import ModelConfig
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


FLOW = "flow"

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
        settings={"fusion": "poe", "subsets": "random", "objective": "elbo"},
        paper="Wu & Goodman, arXiv 1802.05335",
        year=2018,
        cost="M encodes, M decodes",
        limits="an overconfident source outvotes the others",
    ),
    "moe": Method(
        summary="mixture of experts; one source speaks for all in each step",
        settings={"fusion": "moe", "subsets": "present", "objective": "elbo"},
        paper="Shi et al., arXiv 1911.03393",
        year=2019,
        cost="M encodes, M decodes",
        limits="more given sources do not sharpen the answer",
    ),
    "mopoe": Method(
        summary="mixture of products of experts over all subsets",
        settings={"fusion": "mopoe", "subsets": "present", "objective": "elbo"},
        paper="Sutter et al., arXiv 2105.02470",
        year=2021,
        cost="M encodes, M decodes, 2^M products",
        limits="at most 16 sources; averages what sources do not share",
    ),
    "barycenter": Method(
        summary="Wasserstein barycenter of the experts of a random subset",
        settings={"fusion": "barycenter", "subsets": "random", "objective": "elbo"},
        paper="arXiv 2412.20487",
        year=2024,
        cost="M encodes, M decodes",
        limits="more given sources do not narrow the posterior",
    ),
    FLOW: Method(
        summary="shared-latent flow: single-source VAEs, one shared code, a Transformer converter; see docs/flow.md",
        paper="docs/flow.md",
        year=2026,
        cost="four stages; a decode and a few passes of a Transformer for each answer",
        limits="sources need rows in common; expected images take one pass, drawn ones many",
    ),
}


CUSTOM = "custom"  # what a composition is called that is no preset's


def method_named(name: object) -> Method:
    """The method of that name.

    Raises:
        ConfigError: naming the known methods and the nearest one.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(unknown("method", str(name), METHODS))
    return METHODS[name]


def with_method(name: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Model settings completed by a method's; what they say stays, and becomes `custom` if it is no preset's.

    Args:
        name: a method asked for; it replaces the parts that `settings` have from another one. None: the one that
            `settings` name, `mopoe` where they name none.
    """
    wanted: Any = settings.get("method", "mopoe") if name is None else name
    if wanted == CUSTOM:
        return dict(settings)
    own = method_named(wanted).settings
    parts = {**own, **settings} if name is None else {**settings, **own}
    changed = any(parts[key] != value for key, value in own.items())
    return {**parts, "method": CUSTOM if changed else wanted}


def check_method(config: ModelConfig) -> None:
    """Refuse settings that bear the name of a method but are another composition.

    Raises:
        ConfigError: naming the part that differs.
    """
    if config.method == CUSTOM:
        return
    for key, value in method_named(config.method).settings.items():
        if getattr(config, key) != value:
            raise ConfigError(
                f"Method {config.method!r} has {key} {value!r}, but the settings say {getattr(config, key)!r}. "
                f"Take the method's (see with_method), or call it {CUSTOM!r}."
            )
