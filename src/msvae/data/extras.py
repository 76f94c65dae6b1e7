"""Readers that only some sets need, imported when they are needed."""

import importlib
from types import ModuleType

from msvae.errors import DataError


def extra(module: str) -> ModuleType:
    """A module of the extra `[data]`.

    Raises:
        DataError: naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise DataError(f'This data needs {module}, which is not installed. Run: pip install "msvae[data]"') from None
