"""Methods by name: each a short composition of the axes."""

from collections.abc import Mapping
from typing import Any

from msvae.config import ModelConfig
from msvae.errors import ConfigError, unknown
from msvae.fusion import FUSIONS
from msvae.models.published import METHODS, Method
from msvae.objectives import OBJECTIVES

CUSTOM = "custom"  # what a composition is called that is no preset's

#: The settings that say which parts a method has, and how they act; naming a method resets all of them.
PARTS = (
    "private",
    "fusion",
    "prior_expert",
    "dependence",
    "objective",
    "subsets",
    "extra_subsets",
    "samples",
    "gradient",
    "decodes",
    "alpha",
    "alignment",
    "anneal",
    "contrast",
    "contrast_temperature",
    "prior",
    "prior_components",
)

#: Those that act whatever the others are; the others are refused where they would change nothing.
ACTING_ALWAYS = {"private", "fusion", "objective", "contrast", "prior"}


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
    method = method_named(wanted)
    if name is not None:
        settings = {key: value for key, value in settings.items() if key not in PARTS}
        if settings.get("sampler") == "masked_diffusion":  # a model of its own, not a sampler for any
            del settings["sampler"]
    parts = {**method.defaults, **method.settings, **settings}
    changed = any(parts[key] != value for key, value in method.settings.items())
    return {**parts, "method": CUSTOM if changed else wanted}


def check_method(config: ModelConfig) -> None:
    """Refuse settings that bear the name of a method but are another composition, and settings that change nothing.

    Raises:
        ConfigError: naming the part that differs, or the setting without effect.
    """
    if config.method != CUSTOM:
        for key, value in method_named(config.method).settings.items():
            if getattr(config, key) != value:
                raise ConfigError(
                    f"Method {config.method!r} has {key} {value!r}, but the settings say {getattr(config, key)!r}. "
                    f"Take the method's (see with_method), or call it {CUSTOM!r}."
                )
    if config.fusion in FUSIONS and config.objective in OBJECTIVES:
        _check_parts(config)
    acting = set(ACTING_ALWAYS)
    if config.fusion in FUSIONS:
        acting |= FUSIONS[config.fusion].options
    if config.objective in OBJECTIVES:
        acting |= OBJECTIVES[config.objective].options
    if config.contrast:
        acting.add("contrast_temperature")
    if config.prior == "mixture":
        acting.add("prior_components")
    for name in PARTS:
        default = ModelConfig.model_fields[name].default
        if name not in acting and getattr(config, name) != default:
            raise ConfigError(
                f"Setting 'model.{name}' is {getattr(config, name)!r}, but nothing reads it with the objective "
                f"{config.objective!r} and the fusion {config.fusion!r}. Leave it out."
            )
    components = config.sampler_components
    if config.sampler in ("none", "flow") and components != ModelConfig.model_fields["sampler_components"].default:
        raise ConfigError(
            f"Setting 'model.sampler_components' is {components}, but nothing reads it with the sampler "
            f"{config.sampler!r}. Leave it out."
        )


def _check_parts(config: ModelConfig) -> None:
    """Refuse parts that do not go together."""
    objective = OBJECTIVES[config.objective]
    if config.fusion == "separate" and objective.needs_one_code:
        raise ConfigError(
            f"The objective {config.objective!r} compares the sources' codes with a common one, which the fusion "
            "'separate' does not have; choose another fusion."
        )
    if config.fusion == "joint_flows" and config.objective != "jnf":
        raise ConfigError(f"The fusion 'joint_flows' is trained by the objective 'jnf', not by {config.objective!r}.")
    if config.objective == "iwae" and config.decodes == "drawn" and config.fusion != "moe":
        raise ConfigError(
            "Setting 'model.decodes' is 'drawn', but the objective 'iwae' has nothing to draw from with the fusion "
            f"{config.fusion!r}: all codes come from one posterior, not from each source's as with 'moe'. Leave it out."
        )
    if config.prior != "standard" and not objective.reads_prior:
        raise ConfigError(
            f"Setting 'model.prior' is {config.prior!r}, but the objective {config.objective!r} has N(0, I) in its own "
            "formula. Leave it out."
        )
