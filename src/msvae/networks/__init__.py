"""Feature extraction and image generation per source: convolutional, residual, fully connected, or the user's own."""

from msvae.networks.pairs import NETWORKS, SourceNetworks, input_channels, network_input

__all__ = ["NETWORKS", "SourceNetworks", "input_channels", "network_input"]
