"""Whether this process is one of several that train together; known from its environment, before anything is set up."""

import os


def several_processes() -> bool:
    """Whether a launcher (`torchrun`) has started more than this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Whether this process is the only one, or the one that speaks for all."""
    return not several_processes() or os.environ.get("RANK", "0") == "0"
