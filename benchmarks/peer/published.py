"""The peer's methods as its authors run them on PolyMNIST: its own networks, settings, optimiser and batch size.

From its own scripts for PolyMNIST: latent 512, Laplace scale 0.75, beta 2.5, Adam at 1e-3, 256 rows a step; MMVAE with
10 samples; MMVAE+ with residual networks, 32 + 32 latents, 32 rows a step. Learning rates that wait for a plateau of 30
epochs never change within minutes, so they are constant here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peer.pairing import LAPLACE_SCALE, SHAPE

LATENT = 512
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Published:
    """A method of the peer.

    Args:
        build: source names -> its model.
        batch_size: rows of a step.
        optimizer: further settings of Adam.
        note: what a reader of the table should know.
    """

    build: Callable[[list[str]], Any]
    note: str
    batch_size: int = 256
    optimizer: tuple[tuple[str, Any], ...] = ()

    def fresh_optimizer(self, model: Any) -> torch.optim.Optimizer:
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, lr=LEARNING_RATE, **dict(self.optimizer))


def published() -> dict[str, Published]:
    """The methods by name."""
    import multivae.models as peer

    mmvae: dict[str, Any] = {"prior_and_posterior_dist": "laplace_with_softmax", "learn_prior": False}
    return {
        "mvtcae": Published(
            lambda names: peer.MVTCAE(
                peer.MVTCAEConfig(**_common(names), alpha=5 / 6, beta=2.5), *_convolutional(names)
            ),
            "alpha 5/6, beta 2.5, latent 512",
        ),
        "mopoe": Published(
            lambda names: peer.MoPoE(peer.MoPoEConfig(**_common(names), beta=2.5), *_convolutional(names)),
            "beta 2.5, latent 512",
        ),
        "mmvae": Published(
            lambda names: peer.MMVAE(peer.MMVAEConfig(**_common(names), **mmvae, K=10), *_convolutional(names)),
            "K = 10, DReG, Laplace, latent 512",
        ),
        "mmvae-k1": Published(
            lambda names: peer.MMVAE(peer.MMVAEConfig(**_common(names), **mmvae, K=1), *_convolutional(names)),
            "K = 1, DReG, Laplace, latent 512: ten times the steps",
        ),
        "mmvae+": Published(
            lambda names: peer.MMVAEPlus(
                peer.MMVAEPlusConfig(
                    **{**_common(names), "latent_dim": 32},
                    modalities_specific_dim=32,
                    K=1,
                    prior_and_posterior_dist="laplace_with_softmax",
                    beta=2.5,
                    learn_shared_prior=False,
                    learn_modality_prior=True,
                    loss="iwae_looser",
                ),
                *_residual(names),
            ),
            "K = 1, beta 2.5, residual networks, 32 + 32 latents",
            batch_size=32,
            optimizer=(("amsgrad", True),),
        ),
    }


def _common(names: list[str]) -> dict[str, Any]:
    return {
        "n_modalities": len(names),
        "latent_dim": LATENT,
        "input_dims": dict.fromkeys(names, SHAPE),
        "decoders_dist": dict.fromkeys(names, "laplace"),
        "decoder_dist_params": {name: {"scale": LAPLACE_SCALE} for name in names},
    }


def _convolutional(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    from multivae.models.base.base_config import BaseAEConfig
    from multivae.models.nn.mmnist import DecoderConvMMNIST, EncoderConvMMNIST_adapted

    config = BaseAEConfig(latent_dim=LATENT, style_dim=0, input_dim=SHAPE)
    return {n: EncoderConvMMNIST_adapted(config) for n in names}, {n: DecoderConvMMNIST(config) for n in names}


def _residual(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    from multivae.models.nn.mmnist import DecoderResnetMMNIST, EncoderResnetMMNIST

    return {n: EncoderResnetMMNIST(32, 32) for n in names}, {n: DecoderResnetMMNIST(64) for n in names}
