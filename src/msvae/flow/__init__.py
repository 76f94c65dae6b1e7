"""The parts of the shared-latent flow, a file each, and flow matching, which they all rest on.

Exported here is flow matching alone: the path from noise to data, its velocity, and samplers, as pure functions.
"""

from msvae.flow.guidance import composed_velocity, guided_velocity
from msvae.flow.path import PathPoints, noisy, path_points, path_times, path_velocity
from msvae.flow.sampler import Solver, Velocity, invert, sample

__all__ = [
    "PathPoints",
    "Solver",
    "Velocity",
    "composed_velocity",
    "guided_velocity",
    "invert",
    "noisy",
    "path_points",
    "path_times",
    "path_velocity",
    "sample",
]
