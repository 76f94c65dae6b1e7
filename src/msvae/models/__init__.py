"""Models: the contract, the joint VAE, and the published methods by name."""

from msvae.models.base import Features, Loss, MultiSourceModel
from msvae.models.joint import JointVAE
from msvae.models.presets import METHODS, Method, method_named, with_method

__all__ = ["METHODS", "Features", "JointVAE", "Loss", "Method", "MultiSourceModel", "method_named", "with_method"]
