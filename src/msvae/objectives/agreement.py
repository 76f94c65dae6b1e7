"""Objectives of a joint posterior that is asked to agree with every single source's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from msvae.config import ModelConfig
from msvae.errors import ConfigError
from msvae.fusion.joint_flows import JointFlows
from msvae.objectives.base import Loss, Objective, kl_of_each, singles, summary, weighted
from msvae.posterior import Evidence, Posterior
from msvae.source import SourceBatch

if TYPE_CHECKING:
    from msvae.models.joint import JointVAE


@dataclass(frozen=True)
class JointDraw:
    """One code of each row from the posterior of all its sources, with what the sources say of it.

    Args:
        posterior, code: q(z | x_A), and a code drawn from it.
        private: (1, sources, rows, private) each source's own private code.
        scores: (sources, rows) log p(x_m | code).
        kl: (rows,) of the shared and the private codes to their priors.
    """

    posterior: Posterior
    code: Tensor
    private: Tensor
    scores: Tensor
    kl: Tensor


def joint_draw(model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None) -> JointDraw:
    """All present sources heard together, and all of them drawn."""
    present = evidence.present
    posterior = model.fusion(evidence.shared)
    code = posterior.sample(generator)
    private = model.private_codes(evidence, present[None], generator)
    scores = model.log_likelihoods(code[None], private, batch, present[None])[0]
    kl = model.prior.kl(posterior, code) + model.private_kl(evidence, present)
    return JointDraw(posterior, code, private, scores, kl)


class TotalCorrelation(Objective):
    """loss = -(n - alpha)/n sum_m lam_m E_{q_A}[log p(x_m | z)]
              + beta ( (1 - alpha) KL(q_A || p) + (alpha/n) sum_m KL(q_A || q_m) ),  n = |A|

    MVTCAE (Hwang et al. 2021): a bound of the total correlation that z removes, against the multi-view information
    bottleneck; alpha = 5/6 in the paper.
    """

    needs_one_code = True
    options = frozenset({"alpha"})

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.alpha = config.alpha

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        joint = joint_draw(model, evidence, batch, generator)
        count = present.sum(dim=0)
        disagreement = (joint.posterior.kl_to(shared.means, shared.log_variances) * present).sum(dim=0)
        total = self.beta * ((1 - self.alpha) * joint.kl + self.alpha / count * disagreement)
        total = total - (count - self.alpha) / count * weighted(model, joint.scores)
        return summary(model, total, joint.scores, present, kl=joint.kl, disagreement=disagreement)


class ConditionalRedundancy(Objective):
    """loss = -1/(n + 1) ( sum_m lam_m E_{q_A}[log p(x_m | z)] + sum_m lam_m E_{q_m}[log p(x_m | z)]
              - beta ( sum_m KL(q_A || q_m) + KL(q_A || p) ) ),  n = |A|

    CRMVAE: every source is also drawn from its own expert, so that experts stay posteriors of their own.
    """

    needs_one_code = True

    def copies(self) -> int:
        return 2

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        posterior = model.fusion(shared)
        code = posterior.sample(generator)
        wanted = torch.cat([present[None], singles(present)])
        codes = torch.cat([code[None], shared.sample(1, generator)[0]])
        private = model.private_codes(evidence, present.expand_as(wanted), generator)
        scores = model.log_likelihoods(codes, private, batch, wanted)
        kl = model.prior.kl(posterior, code) + model.private_kl(evidence, present)
        disagreement = (posterior.kl_to(shared.means, shared.log_variances) * present).sum(dim=0)
        total = self.beta * (kl + disagreement) - weighted(model, scores).sum(dim=0)
        return summary(model, total / (present.sum(dim=0) + 1), scores[0], present, kl=kl, disagreement=disagreement)


class JointAgreement(Objective):
    """loss = -sum_m lam_m E_{q_X}[log p(x_m | z)] + beta KL(q_X || p) + alignment sum_m KL(q_X || q_m)

    q_X reads all sources at once, so rows have to be complete. JMVAE (Suzuki et al. 2017, arXiv 1611.01891).
    """

    options = frozenset({"alignment"})
    needs_complete_rows = True

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        self.alignment = config.alignment

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        joint = joint_draw(model, evidence, batch, generator)
        disagreement = joint.posterior.kl_to(shared.means, shared.log_variances).sum(dim=0)
        total = self.beta * joint.kl + self.alignment * disagreement - weighted(model, joint.scores)
        return summary(model, total, joint.scores, present, kl=joint.kl, disagreement=disagreement)


class TripleElbo(Objective):
    """loss = -( ELBO(X) by the joint encoder + sum_m ELBO(x_m) by single encoders, with the decoders held )

    The single encoders learn to answer in the code that the joint one has made; nothing they do changes a decoder.
    TELBO (Vedantam et al. 2018, arXiv 1705.10762); rows have to be complete.
    """

    needs_one_code = True
    needs_complete_rows = True

    def copies(self) -> int:
        return 2

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present, shared = evidence.present, evidence.shared
        joint = joint_draw(model, evidence, batch, generator)
        alone = singles(present)
        own_codes = shared.sample(1, generator)[0]
        with model.decoders_held():
            own_scores = model.log_likelihoods(own_codes, joint.private.expand(len(alone), -1, -1, -1), batch, alone)
        own_kl = (kl_of_each(model, shared, own_codes) * present).sum(dim=0)
        total = self.beta * (joint.kl + own_kl) - weighted(model, joint.scores) - weighted(model, own_scores).sum(dim=0)
        return summary(model, total, joint.scores, present, kl=joint.kl, own_kl=own_kl)


class FlowFollowers(Objective):
    """loss = -ELBO(X) by the joint encoder - sum_m log q_m(z | x_m),  z ~ q_X, held

    The flows of single sources follow the joint posterior by maximum likelihood. JNF (Senellart et al. 2023, arXiv
    2302.03461) trains them in a second stage; here both run side by side, since z is held.
    """

    needs_complete_rows = True

    def __init__(self, config: ModelConfig, source_count: int) -> None:
        super().__init__(config, source_count)
        if config.fusion != "joint_flows":
            raise ConfigError(f"The objective 'jnf' trains the fusion 'joint_flows', not {config.fusion!r}.")

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        assert isinstance(model.fusion, JointFlows)
        present, shared = evidence.present, evidence.shared
        joint = joint_draw(model, evidence, batch, generator)
        following = -model.fusion.log_posteriors(shared, joint.code.detach()[None])[:, 0].sum(dim=0)
        total = self.beta * joint.kl - weighted(model, joint.scores) + following
        return summary(model, total, joint.scores, present, kl=joint.kl, following=following)
