"""The peer's methods and ours with the very same networks and weights, so that only the method's own work differs.

The networks are the peer's convolutional pair for PolyMNIST; both sides end a decoder with a sigmoid, and both read
images in [-1, 1]. Only Adam is called differently, as each side's training does: ours in one fused call. Run where PyPI
`multivae` is installed beside this project (see benchmarks/README.md).
"""

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msvae.benchmarking.speed import SHAPE
from msvae.config import ModelConfig, parse
from msvae.models import METHODS, build_model, with_method
from msvae.models.joint import JointVAE
from msvae.source import Source, SourceBatch

LAPLACE_SCALE = 0.75
HIDDEN = 512  # of the peer's joint encoder
METHODS_OF_BOTH = ("mvae", "mopoe", "mvtcae", "jmvae", "mmvae", "mmvae+")


def import_peer(stubs: Path | None = None) -> Any:
    """The package `multivae`.

    Args:
        stubs: folder of stand-ins for packages that it imports and that are not installed, such as torchvision.
    """
    if stubs is not None:
        sys.path.insert(0, str(stubs))
    warnings.simplefilter("ignore")
    import multivae.models as peer

    logging.disable(logging.INFO)  # it prints at every start
    return peer


@dataclass(frozen=True)
class Pairing:
    """One method on both sides.

    Args:
        peer_loss: rows and masks -> the peer's loss, as it defines it.
        divisor: rows -> what its loss has to be divided by to be a mean per row.
        batch: random rows for both.
    """

    peer: nn.Module
    ours: JointVAE
    peer_loss: Callable[[SourceBatch], Tensor]
    divisor: Callable[[int], float]

    def peer_step(self, batch: SourceBatch) -> Callable[[], None]:
        return _step(self.peer, lambda: self.peer_loss(batch))

    def our_step(self, batch: SourceBatch) -> Callable[[], None]:
        """With the optimiser in one call, as in our training; the peer's trainer takes that of `peer_step`."""
        return _step(self.ours, lambda: self.ours.loss(batch).total, fused=True)

    def networks_step(self, batch: SourceBatch) -> Callable[[], None]:
        """What no method does without: all images encoded and decoded once, backward, and our optimiser."""

        def total() -> Tensor:
            networks, config, sums = self.ours.networks, self.ours.config, []
            for name in self.ours.source_names:
                trunk = networks.trunk_of[name]
                means = networks.encoders[trunk](batch.values[name][batch.present[name]])
                sums.append(networks.decoders[trunk](means[:, : config.latent + config.private]).sum())
            return torch.stack(sums).sum()

        return _step(self.ours, total, fused=True)


def known_methods() -> list[str]:
    """The methods that both sides have."""
    return [method for method in METHODS_OF_BOTH if method in METHODS]


def pair(
    method: str, sources: int = 5, latent: int = 64, samples: int = 1, seed: int = 0, spread: float = 1.0
) -> Pairing:
    """Both sides of a method. MMVAE+ splits the latent in a shared and a private half.

    Args:
        spread: factor of the fresh encoders' means: far apart, experts disagree and divergences count.
    """
    from multivae.models.base.base_config import BaseAEConfig
    from multivae.models.nn.mmnist import DecoderConvMMNIST, EncoderConvMMNIST, EncoderConvMMNIST_multilatents

    torch.manual_seed(seed)
    private = latent // 2 if method == "mmvae+" else 0
    shared = latent - private
    encoder_class = EncoderConvMMNIST_multilatents if private else EncoderConvMMNIST
    names = [f"m{i}" for i in range(sources)]
    encoder_config = BaseAEConfig(latent_dim=shared, style_dim=private, input_dim=SHAPE)
    decoder_config = BaseAEConfig(latent_dim=latent, input_dim=SHAPE)
    encoders = {name: encoder_class(encoder_config) for name in names}
    decoders = {name: DecoderConvMMNIST(decoder_config) for name in names}
    for encoder in encoders.values():
        for name, weights in encoder.named_parameters():
            if "_mu" in name:
                weights.data *= spread
    peer = _peer_model(method, encoders, decoders, shared, private, samples)
    heads = peer.joint_encoder.encoders if method == "jmvae" else {}
    networks = {
        name: (OurEncoder(encoders[name], heads[name].plain if heads else None, shared), OurDecoder(decoders[name]))
        for name in names
    }
    settings: dict[str, Any] = {"method": method, "latent": shared, "likelihood_scaling": "none", "sampler": "none"}
    settings |= {
        "mvae": {"extra_subsets": 0},
        "mopoe": {"beta": 2.5, "prior_expert": False},
        "mvtcae": {"beta": 2.5, "alpha": 5 / 6},
        "jmvae": {"alignment": 0.1},
        "mmvae": {"samples": samples},
        "mmvae+": {"samples": samples, "beta": 2.5, "private": private},
    }[method]
    described = [Source(name, SHAPE, likelihood="laplace", scale=LAPLACE_SCALE) for name in names]
    ours = build_model(described, parse(ModelConfig, with_method(None, settings)), networks)
    assert isinstance(ours, JointVAE)
    if method == "jmvae":
        ours.fusion.read = JointRead(peer.joint_encoder, shared)

    def peer_loss(batch: SourceBatch) -> Tensor:
        return peer(_peer_inputs(batch), epoch=1, dataset_size=2048, uses_ddp=False, batch_ratio=0).loss

    sums_rows = method in ("mmvae", "mmvae+")
    return Pairing(peer.train(), ours.train(), peer_loss, lambda rows: float(rows) if sums_rows else 1.0)


def _peer_model(method: str, encoders: Any, decoders: Any, shared: int, private: int, samples: int) -> Any:
    import multivae.models as peer

    names = list(encoders)
    common: dict[str, Any] = {
        "n_modalities": len(names),
        "latent_dim": shared,
        "input_dims": dict.fromkeys(names, SHAPE),
        "decoders_dist": dict.fromkeys(names, "laplace"),
        "decoder_dist_params": {name: {"scale": LAPLACE_SCALE} for name in names},
    }
    importance = {"K": samples, "prior_and_posterior_dist": "normal", "loss": "iwae_looser"}
    builders = {
        "mvae": lambda: (peer.MVAE, peer.MVAEConfig(**common, warmup=0, k=0)),
        "mopoe": lambda: (peer.MoPoE, peer.MoPoEConfig(**common, beta=2.5)),
        "mvtcae": lambda: (peer.MVTCAE, peer.MVTCAEConfig(**common, alpha=5 / 6, beta=2.5)),
        "jmvae": lambda: (peer.JMVAE, peer.JMVAEConfig(**common, warmup=0, alpha=0.1)),
        "mmvae": lambda: (peer.MMVAE, peer.MMVAEConfig(**common, **importance, learn_prior=False)),
        "mmvae+": lambda: (
            peer.MMVAEPlus,
            peer.MMVAEPlusConfig(**common, **importance, modalities_specific_dim=private, beta=2.5),
        ),
    }
    kind, config = builders[method]()
    model = kind(
        config,
        {name: peer_encoder(encoder) for name, encoder in encoders.items()},
        {name: peer_decoder(decoder) for name, decoder in decoders.items()},
    )
    if method == "mopoe":  # its own counts the prior as an expert in the subset of all sources alone
        from multivae.models.base.base_utils import poe

        model._poe_fusion = poe
    model.device = "cpu"
    return model


def _peer_inputs(batch: SourceBatch) -> Any:
    from multivae.data.utils import set_inputs_to_device

    content: dict[str, Any] = {"data": dict(batch.values)}
    if not all(bool(present.all()) for present in batch.present.values()):
        content["masks"] = dict(batch.present)
    return set_inputs_to_device(content, "cpu")


def _step(model: nn.Module, loss: Callable[[], Tensor], fused: bool = False) -> Callable[[], None]:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=fused)

    def step() -> None:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def peer_encoder(plain: nn.Module) -> Any:
    """The peer's encoder, reading [0, 1] as [-1, 1]."""
    from multivae.models.nn.base_architectures import BaseEncoder

    class Scaled(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.plain = plain
            self.latent_dim = plain.latent_dim
            self.style_dim = getattr(plain, "style_dim", 0)

        def forward(self, values: Tensor) -> Any:
            return self.plain(values * 2 - 1)

    return Scaled()


def peer_decoder(plain: nn.Module) -> Any:
    """The peer's decoder with a sigmoid behind it."""
    from multivae.models.nn.base_architectures import BaseDecoder
    from pythae.models.base.base_utils import ModelOutput

    class Bounded(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.plain = plain
            self.latent_dim = plain.latent_dim

        def forward(self, code: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.plain(code).reconstruction))

    return Bounded()


class OurEncoder(nn.Module):
    """The peer's encoder as one of ours: means, log-variances and, for a joint encoder, the token of its own head."""

    def __init__(self, plain: nn.Module, head: nn.Module | None, latent: int) -> None:
        super().__init__()
        self.plain, self.head = plain, head
        self.filling = max(64, 2 * latent) - latent

    def forward(self, values: Tensor) -> Tensor:
        said = self.plain(values)
        means, log_variances = [said.embedding], [said.log_covariance]
        if "style_embedding" in said:
            means.append(said.style_embedding)
            log_variances.append(said.style_log_covariance)
        parts = [*means, *log_variances]
        if self.head is not None:
            token = self.head(values).embedding
            parts += [token, token.new_zeros(len(token), self.filling)]
        return torch.cat(parts, dim=1)


class OurDecoder(nn.Module):
    """The peer's decoder as one of ours, which ends before the sigmoid."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, code: Tensor) -> Tensor:
        return self.plain(code).reconstruction


class JointRead(nn.Module):
    """The layers of the peer's joint encoder that read the heads of all sources."""

    def __init__(self, joint: Any, latent: int) -> None:
        super().__init__()
        self.layers, self.mean, self.log_variance, self.latent = joint.enc, joint.fc1, joint.fc2, latent

    def forward(self, tokens: Tensor) -> Tensor:
        width = max(64, 2 * self.latent)
        read = tokens.unflatten(1, (-1, width))[..., : self.latent].flatten(1)
        hidden = self.layers(read)
        return torch.cat([self.mean(hidden), self.log_variance(hidden)], dim=1)
