"""Every objective against its formula, its estimators against what they estimate."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from conftest import lacking, random_batch, tiny_model
from msvae import gaussian
from msvae.errors import ConfigError, SourceError
from msvae.models import METHODS, JointVAE
from msvae.models import joint as joint_module
from msvae.models.streaming import streamed_loss
from msvae.objectives import Loss, cross_source_contrast
from msvae.posterior import Evidence, Experts
from msvae.source import SourceBatch
from msvae.subsets import all_subsets
from test_exactness import LATENT, NAMES, NOISE, linear_likelihood, linear_model, mean_loss, rows

linear = pytest.mark.usefixtures("linear_likelihood")
__all__ = ["linear_likelihood"]


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def experts_of(model: JointVAE, batch) -> dict[str, Normal]:
    said = model.evidence(batch).shared
    return {
        name: Normal(said.means[i].double(), (0.5 * said.log_variances[i].double()).exp())
        for i, name in enumerate(model.source_names)
    }


def product_of(experts: dict[str, Normal], prior: float = 0.0) -> Normal:
    precision = prior + sum(q.variance.reciprocal() for q in experts.values())
    mean = sum(q.mean / q.variance for q in experts.values()) / precision
    return Normal(mean, precision.rsqrt())


def expected_score(model: JointVAE, batch, name: str, q: Normal) -> Tensor:
    """lam E_q log N(x; W z + b, noise^2), in closed form."""
    decoder = model.networks.decoders[f"of_{name}"]
    weight, bias = decoder.weight.double(), decoder.bias.double()
    gap = batch.values[name].double() - q.mean @ weight.T - bias
    spread = (q.variance @ weight.square().T).sum(dim=1)
    size = gap.shape[1]
    constant = size * (math.log(NOISE) + 0.5 * math.log(2 * math.pi))
    scale = float(model.scales[model.source_names.index(name)])
    return scale * (-0.5 * (gap.square().sum(dim=1) + spread) / NOISE**2 - constant)


def dependent(experts: list[Normal], rho: float) -> Normal:
    """The best linear unbiased mean of experts whose errors have the correlation rho, dimension by dimension."""
    means = torch.stack([q.mean for q in experts], dim=-1)
    deviations = torch.stack([q.stddev for q in experts], dim=-1)
    correlation = torch.full((len(experts), len(experts)), rho, dtype=torch.float64).fill_diagonal_(1.0)
    inverse = torch.linalg.inv(correlation * deviations[..., :, None] * deviations[..., None, :])
    total = inverse.sum(dim=(-1, -2))
    return Normal((inverse.sum(dim=-2) * means).sum(dim=-1) / total, total.rsqrt())


def kl(q: Normal, p: Normal) -> Tensor:
    return kl_divergence(q, p).sum(dim=1)


STANDARD = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def closed_form(method: str, model: JointVAE, batch) -> Tensor:
    """The loss of each row, from the published formula."""
    experts = experts_of(model, batch)
    config, count = model.config, len(NAMES)
    joint = product_of(experts)
    own = sum(expected_score(model, batch, name, experts[name]) for name in NAMES)
    scores = sum(expected_score(model, batch, name, joint) for name in NAMES)
    apart = sum(kl(joint, q) for q in experts.values())
    if method == "mvtcae":
        pull = (1 - config.alpha) * kl(joint, STANDARD) + config.alpha / count * apart
        return -(count - config.alpha) / count * scores + config.beta * pull
    if method == "crmvae":
        return -(scores + own - config.beta * (apart + kl(joint, STANDARD))) / (count + 1)
    if method == "mmvm":
        between = sum(kl(a, b) for a in experts.values() for b in experts.values()) / count
        return -own + config.beta * between
    if method == "jmvae":
        said = model.evidence(batch).shared
        posterior = model.fusion(said)
        joint = Normal(posterior.means[0].double(), (0.5 * posterior.log_variances[0].double()).exp())
        scores = sum(expected_score(model, batch, name, joint) for name in NAMES)
        apart = sum(kl(joint, q) for q in experts.values())
        return -scores + config.beta * kl(joint, STANDARD) + config.alignment * apart
    if method == "mmjsd":
        mixed = sum(expected_score(model, batch, name, q) for name in NAMES for q in experts.values()) / count
        share = 1 / (count + 1)
        powers = product_of(experts, prior=1.0)
        prior = Normal(powers.mean, powers.stddev / share**0.5)
        one = Normal(torch.zeros_like(prior.mean), torch.ones_like(prior.mean))
        return -mixed + config.beta * share * (sum(kl(q, prior) for q in experts.values()) + kl(one, prior))
    if method == "mvae":
        total = torch.zeros((), dtype=torch.float64)
        subsets = [NAMES, *[(name,) for name in NAMES]]
        for subset in subsets:
            q = product_of({name: experts[name] for name in subset}, prior=1.0)
            score = sum(expected_score(model, batch, name, q) for name in subset)
            total = total - score + config.beta * kl(q, STANDARD)
        return total
    if method == "telbo":
        posterior = model.fusion(model.evidence(batch).shared)
        joint = Normal(posterior.means[0].double(), (0.5 * posterior.log_variances[0].double()).exp())
        scores = sum(expected_score(model, batch, name, joint) for name in NAMES)
        alone = sum(
            expected_score(model, batch, name, q) - config.beta * kl(q, STANDARD) for name, q in experts.items()
        )
        return -(scores - config.beta * kl(joint, STANDARD)) - alone
    if method == "codevae":
        weights = torch.softmax(model.objective.logits.double(), dim=0)
        table = all_subsets(count, torch.device("cpu"))
        total = (weights * (weights * len(table)).log()).sum()
        for subset, weight in zip(table, weights, strict=True):
            heard = {name: experts[name] for name, inside in zip(NAMES, subset, strict=True) if inside}
            q = dependent(list(heard.values()), config.dependence)
            scores = sum(expected_score(model, batch, name, q) for name in NAMES)
            total = total - weight * (scores - config.beta * kl(q, STANDARD))
        return total
    if method == "dmvae":  # without private codes
        heard = [NAMES, *[(name,) for name in NAMES]]
        posteriors = [product_of({name: experts[name] for name in subset}, prior=1.0) for subset in heard]
        total = torch.zeros((), dtype=torch.float64)
        for name, scale in zip(NAMES, model.scales, strict=True):  # which weighs the divergences, too
            for q in posteriors:
                total = total - expected_score(model, batch, name, q) + float(scale) * config.beta * kl(q, STANDARD)
        return total
    raise AssertionError(method)


@linear
@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("mvtcae", {}),
        ("mvtcae", {"alpha": 0.2}),
        ("crmvae", {}),
        ("mmvm", {}),
        ("jmvae", {}),
        ("jmvae", {"alignment": 2.0}),
        ("mmjsd", {}),
        ("mvae", {"extra_subsets": 0}),
        ("dmvae", {"private": 0}),
        ("dmvae", {"private": 0, "decodes": "drawn"}),
        ("telbo", {}),
        ("codevae", {}),
        ("codevae", {"decodes": "drawn", "dependence": 0.2}),
    ],
)
def test_the_loss_is_what_its_formula_says(method: str, settings: dict[str, object], beta: float) -> None:
    model, batch = linear_model(method, beta=beta, **settings), rows()
    with torch.no_grad():
        model.scales.copy_(torch.tensor([1.0, 2.0, 0.5]))
        if method == "codevae":
            model.objective.logits.copy_(torch.randn(model.objective.logits.shape, generator=generator()))
        expected = float(closed_form(method, model, batch).mean())
    loss, error = mean_loss(model, batch)
    assert loss == pytest.approx(expected, abs=5 * error)


@linear
@pytest.mark.parametrize(
    ("method", "weight"),
    [("mvtcae", (3 - 5 / 6) / 3), ("crmvae", 2 / 4), ("telbo", 2.0), ("jmvae", 1.0), ("dmvae", 4.0)],
)
def test_the_divergence_of_private_codes_counts_as_what_is_drawn_with_them(method: str, weight: float) -> None:
    """Decoders that do not read them: what private codes then add to the loss is their divergence alone."""
    model, batch, beta = linear_model(method, private=1, beta=0.7), rows(), 0.7
    own = LATENT + 1
    with torch.no_grad():
        for name in NAMES:
            model.networks.decoders[f"of_{name}"].weight[:, LATENT:] = 0.0
        divergence = float(model.private_kls(model.evidence(batch)).sum(dim=0).mean())
        loss = float(model.loss(batch, generator()).total)
        for name in NAMES:
            encoder = model.networks.encoders[f"of_{name}"]
            for output in (LATENT, own + LATENT):  # its mean, its variance
                encoder.weight[output], encoder.bias[output] = 0.0, 0.0
        without = float(model.loss(batch, generator()).total)
    assert divergence > 0.1
    assert loss - without == pytest.approx(weight * beta * divergence, rel=1e-4)


@linear
def test_the_alignment_of_mmvm_starts_at_the_prior() -> None:
    model, batch = linear_model("mmvm", anneal=0.5), rows()
    losses = []
    for model.progress in (0.0, 0.25, 0.5, 1.0):
        losses.append(mean_loss(model, batch)[0])
    experts = experts_of(model, batch)
    own = sum(expected_score(model, batch, name, experts[name]) for name in NAMES)
    at_start = float((-own + sum(kl(q, STANDARD) for q in experts.values())).mean().detach())
    assert losses[0] == pytest.approx(at_start, abs=0.2)
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, abs=1e-3)
    assert losses[2] == losses[3]


ENCODER = "networks.encoders.of_a.weight"


def mean_gradient(model: JointVAE, batch, copies: int, parts: int = 10) -> tuple[Tensor, Tensor]:
    """The encoder's gradient in expectation, and its standard error."""
    many = batch.rows(torch.arange(len(batch)).repeat(copies))
    weight = dict(model.named_parameters())[ENCODER]
    found = []
    noise = generator(5)
    for _ in range(parts):
        model.zero_grad()
        model.loss(many, noise).total.backward()
        assert weight.grad is not None
        found.append(weight.grad.clone())
    stacked = torch.stack(found)
    return stacked.mean(dim=0), stacked.std(dim=0) / math.sqrt(parts)


@linear
@pytest.mark.parametrize(("fusion", "private"), [("poe", 0), ("poe", 1), ("barycenter", 0)])
def test_the_doubly_reparameterised_gradient_is_that_of_the_bound(fusion: str, private: int) -> None:
    parts = {"fusion": fusion, "objective": "iwae", "samples": 5, "private": private}
    plain, error = mean_gradient(linear_model("custom", **parts), rows(), 2000)
    other, other_error = mean_gradient(linear_model("custom", **parts, gradient="dreg"), rows(), 2000)
    gap = (plain - other).abs() / (error.square() + other_error.square()).sqrt()
    assert float(gap.max()) < 6
    assert float(gap.mean()) < 1.6
    assert float(other_error.mean()) < float(error.mean())  # what it is for


@linear
def test_the_doubly_reparameterised_gradient_of_guards_is_the_plain_one() -> None:
    """No density of a guard is in the bound: there is nothing to reparameterise."""
    gradients = []
    for gradient in ("iwae", "dreg"):
        model = linear_model("mmvae+", private=1, samples=5, gradient=gradient)
        model.loss(rows(), generator()).total.backward()
        assert model.guard.log_variances.grad is not None
        gradients.append(model.guard.log_variances.grad)
    assert float(gradients[0].abs().min()) > 0
    torch.testing.assert_close(*gradients)


@linear
def test_the_doubly_reparameterised_bound_has_the_same_value() -> None:
    values = [
        float(linear_model("mmvae", samples=5, gradient=g).loss(rows(), generator()).total.detach())
        for g in ("iwae", "dreg")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@linear
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("mmvae", {}),
        ("mmvae", {"samples": 3}),
        ("mmvae+", {"private": 1}),
        ("mmvae+", {"private": 1, "samples": 3}),
        ("cmvae", {"private": 1, "prior_components": 3}),
        ("dmvae", {"private": 1}),
        ("codevae", {}),
    ],
)
def test_drawn_decodes_are_unbiased_in_value_and_gradient(method: str, settings: dict[str, object]) -> None:
    batch = lacking(rows(), {"b": [1], "c": [1, 2]}, 0.0)
    everything, drawn = (linear_model(method, decodes=which, **settings) for which in ("all", "drawn"))
    exact, error = mean_loss(everything, batch)
    estimate, other = mean_loss(drawn, batch, copies=2500)
    assert estimate == pytest.approx(exact, abs=5 * math.hypot(error, other))
    gradient, error = mean_gradient(everything, batch, 200)
    guess, other = mean_gradient(drawn, batch, 1000)
    assert float(((gradient - guess).abs() / (error.square() + other.square()).sqrt()).max()) < 6


@pytest.mark.parametrize(
    "method", ["mvae", "mmvae", "mmvae+", "dmvae", "codevae", "mmvm", "mopoe", "jmvae", "telbo", "cmvae"]
)
def test_a_streamed_loss_is_the_same_loss(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise (variances near 0) both ways have to agree, whatever order the noise is drawn in."""
    settings = {"samples": 2} if method in ("mmvae", "mmvae+", "cmvae") else {}
    settings |= {"extra_subsets": 0} if method == "mvae" else {}
    model = tiny_model(method, prior_components=3, **settings) if method == "cmvae" else tiny_model(method, **settings)
    monkeypatch.setattr(torch, "randn", lambda *shape, generator=None, **other: torch.zeros(*shape, **other))
    batch = random_batch(model, rows=7)
    if METHODS[method].partial_rows:
        batch = lacking(batch, {"blue": [0, 1], "grey": [1, 2]})
    if method == "mopoe":
        model.fusion = tiny_model("poe").fusion  # its component is drawn at random
    answers = []
    for limit in (10**9, 1):
        monkeypatch.setattr(joint_module, "VALUES_DECODED_AT_ONCE", limit * 1000)
        model.zero_grad()
        loss = model.loss(batch, generator())
        loss.total.backward()
        answers.append((loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (whole, gradients), (parts, streamed) = answers
    torch.testing.assert_close(whole.total, parts.total)
    assert gradients.keys() == streamed.keys()
    for name in gradients:
        torch.testing.assert_close(gradients[name], streamed[name], rtol=1e-3, atol=1e-5)
    assert whole.terms.keys() == parts.terms.keys()
    with torch.no_grad():
        torch.testing.assert_close(model.loss(batch, generator()).total, parts.total.detach())


def test_the_contrast_is_a_cross_entropy_over_the_batch() -> None:
    noise = generator()
    means = torch.randn(3, 6, 4, generator=noise, dtype=torch.float64)
    present = torch.ones(3, 6, dtype=torch.bool)
    present[0, 1] = present[2, 3] = False
    found = cross_source_contrast(Experts(means, torch.zeros_like(means), present), 0.5)
    unit = means / means.norm(dim=2, keepdim=True)
    losses = []
    for i in range(3):
        for j in range(3):
            if i == j:
                continue
            candidates = present[j].nonzero().squeeze(1).tolist()
            for row in range(6):
                if present[i, row] and present[j, row]:
                    logits = torch.stack([(unit[i, row] * unit[j, other]).sum() for other in candidates]) / 0.5
                    losses.append(
                        torch.nn.functional.cross_entropy(logits[None], torch.tensor([candidates.index(row)]))
                    )
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_the_contrast_of_rows_with_one_source_is_nothing() -> None:
    means = torch.randn(2, 3, 4, requires_grad=True)
    present = torch.tensor([[True, True, False], [False, False, True]])
    loss = cross_source_contrast(Experts(means, torch.zeros(2, 3, 4), present), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert means.grad is not None
    assert bool(torch.isfinite(means.grad).all())


#: For every setting a method that reads it, and two values with which a loss draws the same numbers.
OPTIONS = {
    "beta": ("mopoe", 0.5, 1.0),
    "prior_expert": ("mopoe", True, False),
    "dependence": ("codevae", 0.1, 0.6),
    "alpha": ("mvtcae", 0.2, 0.8),
    "alignment": ("jmvae", 0.1, 1.0),
    "contrast": ("mopoe", 0.0, 1.0),
    "prior": ("mopoe", "standard", "mixture"),
    "likelihood_scaling": ("mopoe", "largest", "none"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_loss(option: str) -> None:
    method, *values = OPTIONS[option]
    losses = []
    for value in values:
        model = tiny_model(method, **{option: value})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02)  # experts that differ
        losses.append(float(model.loss(random_batch(model), generator()).total.detach()))
    assert losses[0] != losses[1]


@linear
@pytest.mark.parametrize(
    ("method", "option", "values"),
    [("poe", "subsets", ("present", "random")), ("mvae", "extra_subsets", (0, 2)), ("mmvae", "samples", (1, 3))],
)
def test_every_option_of_draws_changes_the_expected_loss(method: str, option: str, values: tuple[object, ...]) -> None:
    (first, error), (second, other) = (mean_loss(linear_model(method, **{option: v}), rows()) for v in values)
    assert abs(first - second) > 6 * math.hypot(error, other)


@pytest.mark.parametrize(("which", "decoded"), [("all", 3 * 3), ("drawn", 3)])
def test_drawn_decodes_are_fewer(which: str, decoded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, count = tiny_model("mmvae", decodes=which), []
    decode = model.networks.decode

    def counted(name: str, codes: Tensor) -> Tensor:
        count.append(len(codes))
        return decode(name, codes)

    monkeypatch.setattr(model.networks, "decode", counted)
    batch = random_batch(model)
    model.loss(batch, generator())
    assert sum(count) == decoded * len(batch)


def test_options_that_act_on_gradients_alone_and_late() -> None:
    gradients = []
    for gradient in ("iwae", "dreg"):
        model = tiny_model("mmvae", samples=3, gradient=gradient)
        model.loss(random_batch(model), generator()).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.networks.encoders.parameters()]))
    assert not torch.allclose(gradients[0], gradients[1])
    losses = []
    for anneal in (0.4, 0.9):
        model = tiny_model("mmvm", anneal=anneal)
        model.progress = 0.3
        losses.append(float(model.loss(random_batch(model), generator()).total.detach()))
    assert losses[0] != losses[1]
    temperatures = [tiny_model("moe", contrast=1.0, contrast_temperature=t) for t in (0.1, 0.5)]
    first, second = (float(m.loss(random_batch(m), generator()).total.detach()) for m in temperatures)
    assert first != second


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": -3}, "latent"),
        ({"samples": 0}, "samples"),
        ({"alpha": 2.0}, "alpha"),
        ({"dependence": 1.0}, "dependence"),
        ({"alignment": -1.0}, "alignment"),
        ({"contrast_temperature": 0.0}, "contrast_temperature"),
        ({"gradient": "reinforce"}, "gradient"),
        ({"method": "mvtcae", "samples": 5}, "'model.samples' is 5, but nothing reads it"),
        ({"method": "mmvae", "alpha": 0.3}, "'model.alpha' is 0.3, but nothing reads it"),
        ({"method": "mopoe", "contrast_temperature": 0.3}, "'model.contrast_temperature'"),
        ({"method": "single", "prior_expert": False}, "'model.prior_expert' is False, but nothing reads it"),
        ({"method": "poe", "sampler": "none", "sampler_components": 5}, "'model.sampler_components' is 5"),
        ({"method": "custom", "fusion": "poe", "objective": "iwae", "decodes": "drawn"}, "nothing to draw from"),
        ({"method": "custom", "fusion": "separate", "objective": "jmvae"}, "choose another fusion"),
        ({"fusion": "barycentre"}, "Did you mean 'barycenter'"),
        ({"objective": "iwea"}, "Did you mean 'iwae'"),
        ({"prior": "mixtur"}, "Did you mean 'mixture'"),
        ({"sampler": "mixtures"}, "Did you mean 'mixture'"),
        ({"method": "mmvae++"}, r"Did you mean 'mmvae\+'"),
    ],
)
def test_bad_options_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_model(**{"method": "mopoe", **settings})


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.partial_rows])
def test_methods_for_complete_rows_name_the_row_and_the_source(method: str) -> None:
    model = tiny_model(method)
    assert model.needs_complete_rows
    with pytest.raises(SourceError, match="needs complete rows; row 3 of the batch lacks source 'grey'"):
        model.loss(lacking(random_batch(model), {"grey": [3]}), generator())


@linear
@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if m.partial_rows and name != "flow"])
def test_rows_that_lack_a_source_have_the_loss_of_a_model_without_it(method: str) -> None:
    """No term knows that there could have been a third source."""
    settings = {"private": 1} if METHODS[method].defaults.get("private") else {}
    settings |= {"prior_components": 3} if method == "cmvae" else {}
    settings |= {"extra_subsets": 0} if method == "mvae" else {}
    three, two = linear_model(method, **settings), linear_model(method, names=NAMES[:2], **settings)
    known = two.state_dict()
    two.load_state_dict(
        {k: v for k, v in three.state_dict().items() if k in known and v.shape == known[k].shape}, strict=False
    )
    batch = rows().select(NAMES[:2])
    first, error = mean_loss(three, batch)
    second, other = mean_loss(two, batch)
    assert first == pytest.approx(second, abs=5 * math.hypot(error, other))


def test_the_doubly_weighted_mixture_of_affinities() -> None:
    """The affinity of a Gaussian with itself is one."""
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    log_affinity, between, width = gaussian.hellinger_affinity(mean, log_variance, mean, log_variance)
    torch.testing.assert_close(log_affinity, torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(between, mean)
    torch.testing.assert_close(width, log_variance)


def test_streamed_gradients_in_half_precision_are_those_in_full() -> None:
    """A gradient of 1e-8 is nothing in fp16 unless it is scaled in time."""
    experts = Experts(torch.ones(1, 4, 3), torch.zeros(1, 4, 3), torch.ones(1, 4, dtype=torch.bool))
    weight, batch = torch.ones(3, 3, requires_grad=True), SourceBatch.complete({"a": torch.zeros(4, 1)})

    def loss_of_rows(evidence: Evidence, rows: SourceBatch) -> Loss:
        return Loss(1e-8 * (evidence.shared.means[0] @ weight).float().sum(dim=1).mean(), {})

    with torch.autocast("cpu", torch.float16):
        streamed_loss(loss_of_rows, Evidence(experts, experts), batch, [weight], 2).total.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.full((3, 3), 1e-8), rtol=0.05, atol=0)
