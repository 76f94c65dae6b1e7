"""Flow matching: the path from noise to data, its velocity, and samplers; pure functions."""

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
