"""Objectives of a joint posterior that is asked to agree with every single source's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from msvae.config import ModelConfig
from msvae.errors import ConfigError
from msvae.fusion.joint_flows import JointFlows
from msvae.objectives.base import Loss, Objective, drawn_alone, singles, summary, weighted
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
        kl, private_kl: (rows,) of the shared and of the private codes to their priors.
    """

    posterior: Posterior
    code: Tensor
    private: Tensor
    scores: Tensor
    kl: Tensor
    private_kl: Tensor

    def bound(self, model: JointVAE, beta: float) -> Float[Tensor, " rows"]:
        """-ELBO(x_A) of each row."""
        return beta * (self.kl + self.private_kl) - weighted(model, self.scores)

    @property
    def terms(self) -> dict[str, Tensor]:
        """What is shown beside the loss."""
        return {"kl": self.kl + self.private_kl}


def joint_draw(model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None) -> JointDraw:
    """All present sources heard together, and all of them drawn."""
    present = evidence.present
    posterior = model.fusion(evidence.shared)
    code = posterior.sample(generator)
    private = model.private_codes(evidence, present[None], generator)
    scores = model.log_likelihoods(code[None], private, batch, present[None])[0]
    kl, private_kl = model.prior.kl(posterior, code), model.private_kl(evidence, present)
    return JointDraw(posterior, code, private, scores, kl, private_kl)


class TotalCorrelation(Objective):
    """loss = -(n - alpha)/n sum_m lam_m E_{q_A}[log p(x_m | z)]
              + beta ( (1 - alpha) KL(q_A || p) + (alpha/n) sum_m KL(q_A || q_m) ),  n = |A|

    MVTCAE (Hwang et al. 2021): a bound of the total correlation that z removes, against the multi-view information
    bottleneck; alpha = 5/6 in the paper. Private codes, which the paper has not, are further numbers of z that only
    their own expert tells from the prior: so their KL counts (n - alpha)/n, as what is drawn with them does.
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
        drawn = self.beta * joint.private_kl - weighted(model, joint.scores)
        total = (count - self.alpha) / count * drawn
        total = total + self.beta * ((1 - self.alpha) * joint.kl + self.alpha / count * disagreement)
        return summary(model, total, joint.scores, present, **joint.terms, disagreement=disagreement)


class ConditionalRedundancy(Objective):
    """loss = -1/(n + 1) ( sum_m lam_m E_{q_A}[log p(x_m | z)] + sum_m lam_m E_{q_m}[log p(x_m | z)]
              - beta ( sum_m KL(q_A || q_m) + KL(q_A || p) ) ),  n = |A|

    CRMVAE: every source is also drawn from its own expert, so that experts stay posteriors of their own. Both times it
    is drawn with its private code, where there is one, whose KL counts twice then.
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
        kl, private_kl = model.prior.kl(posterior, code), model.private_kl(evidence, present)
        disagreement = (posterior.kl_to(shared.means, shared.log_variances) * present).sum(dim=0)
        total = self.beta * (kl + 2 * private_kl + disagreement) - weighted(model, scores).sum(dim=0)
        terms = {"kl": kl + private_kl, "disagreement": disagreement}
        return summary(model, total / (present.sum(dim=0) + 1), scores[0], present, **terms)


class JointAgreement(Objective):
    """loss = -sum_m lam_m E_{q_X}[log p(x_m | z)] + beta KL(q_X || p) + alignment sum_m KL(q_X || q_m)

    q_X reads all sources at once, so rows have to be complete. JMVAE (Suzuki et al. 2017, arXiv 1611.01891).
    """

    options = frozenset({"alignment"})
    needs_one_code = True
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
        total = joint.bound(model, self.beta) + self.alignment * disagreement
        return summary(model, total, joint.scores, present, **joint.terms, disagreement=disagreement)


class TripleElbo(Objective):
    """loss = -( ELBO(X) by the joint encoder + sum_m ELBO(x_m) by single encoders, with the decoders held )

    The single encoders learn to answer in the code that the joint one has made; nothing they do changes a decoder.
    Private codes are in both bounds, and their KL with them. TELBO (Vedantam et al. 2018, arXiv 1705.10762); rows have
    to be complete.
    """

    needs_one_code = True
    needs_complete_rows = True

    def copies(self) -> int:
        return 2

    def forward(
        self, model: JointVAE, evidence: Evidence, batch: SourceBatch, generator: Generator | None = None
    ) -> Loss:
        present = evidence.present
        joint = joint_draw(model, evidence, batch, generator)
        alone = singles(present)
        own_codes, own_kls = drawn_alone(model, evidence, generator)
        with model.decoders_held():
            own_scores = model.log_likelihoods(own_codes, joint.private.expand(len(alone), -1, -1, -1), batch, alone)
        own_kl = own_kls.sum(dim=0)
        own_bound = self.beta * (own_kl + joint.private_kl) - weighted(model, own_scores).sum(dim=0)
        total = joint.bound(model, self.beta) + own_bound
        return summary(model, total, joint.scores, present, **joint.terms, own_kl=own_kl)


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
        total = joint.bound(model, self.beta) + following
        return summary(model, total, joint.scores, present, **joint.terms, following=following)
