"""A table of paths: row, [split], one column per source."""

from pathlib import Path

from msvae.data.formats import image_format
from msvae.data.own.layout import (
    Holding,
    Layout,
    Origin,
    Problem,
    is_outside,
    read_table,
    refuse_unknown_origins,
    source_name,
)


def manifest_layout(path: Path, given: dict[str, Origin] | None, allow_outside: bool) -> Layout:
    """The files that a manifest names; its other columns are labels and splits."""
    table = read_table(path)
    root = path.parent
    first: dict[str, str] = {}
    for entry in table.values():
        first.update({column: value for column, value in entry.items() if value and column not in first})
    origins = given or {source_name(c): Origin(c) for c, v in first.items() if image_format(v) is not None}
    layout = Layout(root, "manifest", origins)
    refuse_unknown_origins(layout, next(iter(table.values()), {}), "column")
    columns = {origin.path for origin in origins.values()}
    for row, entry in table.items():
        layout.table[row] = {column: value for column, value in entry.items() if column not in columns}
        for name, origin in origins.items():
            if not entry.get(origin.path):
                continue
            file = root / entry[origin.path]
            if "\0" in str(file):
                reason = f"row {row!r}: no path"
            elif not allow_outside and is_outside(file, root):
                reason = f"row {row!r}: the path leads out of the data folder; set allow_outside: true to follow it"
            elif image_format(file.name) is None:
                reason = f"row {row!r}: no image file"
            else:
                layout.holdings.append(Holding(name, row, file))
                continue
            layout.problems.append(Problem(name, entry[origin.path], reason))
    return layout
