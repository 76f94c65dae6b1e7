"""Training objectives by name."""

from msvae.config import ModelConfig
from msvae.errors import ConfigError, unknown
from msvae.objectives.agreement import (
    ConditionalRedundancy,
    FlowFollowers,
    JointAgreement,
    TotalCorrelation,
    TripleElbo,
)
from msvae.objectives.base import Loss, Objective
from msvae.objectives.contrast import cross_source_contrast
from msvae.objectives.disentangled import Disentangled
from msvae.objectives.divergence import JensenShannon, MutualAlignment
from msvae.objectives.elbo import Elbo
from msvae.objectives.importance import ImportanceWeighted
from msvae.objectives.subsampled import SubsampledElbo
from msvae.objectives.subset_weights import WeightedSubsets

OBJECTIVES: dict[str, type[Objective]] = {
    "elbo": Elbo,
    "subsampled": SubsampledElbo,
    "iwae": ImportanceWeighted,
    "mvtcae": TotalCorrelation,
    "crmvae": ConditionalRedundancy,
    "jmvae": JointAgreement,
    "telbo": TripleElbo,
    "jnf": FlowFollowers,
    "mmjsd": JensenShannon,
    "mmvm": MutualAlignment,
    "dmvae": Disentangled,
    "subset_weights": WeightedSubsets,
}


def build_objective(config: ModelConfig, source_count: int) -> Objective:
    """The objective that the settings name.

    Raises:
        ConfigError: for an unknown name.
    """
    if config.objective not in OBJECTIVES:
        raise ConfigError(unknown("objective", config.objective, OBJECTIVES))
    return OBJECTIVES[config.objective](config, source_count)


__all__ = ["OBJECTIVES", "Loss", "Objective", "build_objective", "cross_source_contrast"]
