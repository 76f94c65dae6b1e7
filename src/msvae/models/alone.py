"""One source's VAE out of a joint model, as a module of its own: what other programs need of it, and nothing else."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msvae.errors import SourceError
from msvae.flow.sampler import sample
from msvae.likelihoods import mean_image
from msvae.models.base import MultiSourceModel
from msvae.models.joint import JointVAE
from msvae.models.shared_flow import SharedFlow
from msvae.source import source_named

Moments = tuple[Float[Tensor, "rows latent"], Float[Tensor, "rows latent"]]


class SingleVae(nn.Module, ABC):
    """Tensors in, tensors out, without checks; images in the source's value range.

    Args:
        latent: length of a latent vector.
        noise: length of the normal noise that an image is generated from.
    """

    def __init__(self, latent: int, noise: int) -> None:
        super().__init__()
        self.latent, self.noise = latent, noise

    @abstractmethod
    def encode(self, images: Tensor) -> Moments:
        """Mean and standard deviation of q(latent | image)."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "rows latent"]) -> Tensor:
        """Expected images."""

    @abstractmethod
    def generate(self, noise: Float[Tensor, "rows noise"]) -> Tensor:
        """Images from N(0, I), by what this source knows without the others."""


class JointSource(SingleVae):
    """A source of a `JointVAE`; its latents are its shared and its private code.

    Its posterior is that of the model given this source alone: where the fusion counts the prior as an expert, so does
    this. N(0, I) stands for the prior, also where the method has learned another one.
    """

    def __init__(self, model: JointVAE, name: str) -> None:
        latent = model.config.latent + model.config.private
        super().__init__(latent, latent)
        self.networks, self.source = model.networks, source_named(model.sources, name)
        self.shared = model.config.latent
        self.prior_precision = float(model.fusion.counts_prior)

    def encode(self, images: Tensor) -> Moments:
        mean, log_variance, _ = self.networks.encode(self.source.name, images)
        precision = (-log_variance).exp()
        total = torch.cat([precision[:, : self.shared] + self.prior_precision, precision[:, self.shared :]], dim=1)
        return mean * precision / total, total.rsqrt()

    def decode(self, latents: Float[Tensor, "rows latent"]) -> Tensor:
        raw = self.networks.decode(self.source.name, latents)
        return mean_image(raw, self.source)

    def generate(self, noise: Float[Tensor, "rows noise"]) -> Tensor:
        return self.decode(noise)


class FlowSource(SingleVae):
    """A source of the shared-latent flow; it generates by its flow without any shared code."""

    def __init__(self, model: SharedFlow, name: str) -> None:
        size = model.autoencoders.networks.size(name)
        super().__init__(size, size)
        self.name, self.sampling = name, model.sampling
        self.autoencoders, self.renderer = model.autoencoders, model.renderer
        self.slots, self.size = model.content.slots, model.content.size

    def encode(self, images: Tensor) -> Moments:
        mean = self.autoencoders.latents({self.name: images})[self.name]
        return mean, torch.full_like(mean, self.autoencoders.noise)

    def decode(self, latents: Float[Tensor, "rows latent"]) -> Tensor:
        return self.autoencoders.image(self.name, latents)

    def generate(self, noise: Float[Tensor, "rows noise"]) -> Tensor:
        rows, how = noise.shape[0], self.sampling
        code = noise.new_zeros(rows, self.slots, self.size)
        known = torch.zeros(rows, dtype=torch.bool, device=noise.device)
        velocity = self.renderer.velocity([(self.name, rows)], code, known)
        return self.decode(sample(velocity, noise, how.image_steps, how.early, how.solver))


def alone(model: MultiSourceModel, name: str) -> SingleVae:
    """The VAE of one source of a trained model, sharing its weights.

    Raises:
        SourceError: for an unknown source, a model whose fusion makes no posterior of one source alone, or a flow that
            was not trained to draw a source without a code.
    """
    source_named(model.sources, name)
    if isinstance(model, SharedFlow):
        if model.config.renderer == "mean" or model.config.dropped == 0.0:
            raise SourceError(f"Source {name!r}: this flow was not trained to draw a source without a shared code.")
        return FlowSource(model, name)
    if isinstance(model, JointVAE) and model.fusion.experts_are_posteriors:
        return JointSource(model, name)
    raise SourceError(f"Source {name!r}: this model's encoders say nothing of one source alone.")
