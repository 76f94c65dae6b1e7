"""What command line options mean before any run is opened."""

import pytest

from msvae.cli.options import parse_rows
from msvae.errors import ConfigError


def test_the_first_rows_are_all_where_there_are_fewer() -> None:
    assert parse_rows(":8", 21) == range(8)
    assert parse_rows(":100", 21) == range(21)
    assert parse_rows("0:", 21) == range(21)
    assert parse_rows("3", 21) == range(3, 4)
    with pytest.raises(ConfigError, match="between 0 and 21"):
        parse_rows("0:100", 21)
