"""The bones of the HTML report: one file, no scripts, nothing loaded from anywhere; light and dark."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

STYLE = """
:root { --paper: #fbfaf7; --card: #ffffff; --ink: #23242a; --soft: #6d6f78; --line: #e4e1d8; --accent: #2f6fdf; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16171b; --card: #1f2127; --ink: #e8e6e1; --soft: #9a9ca6; --line: #32343c; --accent: #7da7ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 34px; line-height: 1.15; margin: 0 0 6px; letter-spacing: -0.02em; }
h2 { font-size: 21px; margin: 52px 0 4px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 22px 0 6px; font-weight: 600; }
p { margin: 4px 0 14px; color: var(--soft); max-width: 76ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; margin: 26px 0 8px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.card b { display: block; font-size: 27px; font-weight: 650; letter-spacing: -0.02em; font-variant-numeric:
tabular-nums; } .card span { font-size: 13px; color: var(--soft); } table { border-collapse: collapse; font-size:
14px; font-variant-numeric: tabular-nums; margin: 8px 0; } th { text-align: left; font-weight: 600; color:
var(--soft); font-size: 13px; } th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); } td.number,
th.number { text-align: right; } table.heat td { text-align: center; padding: 8px 14px; border: 2px solid
var(--paper); border-radius: 6px; color:
#14151a; } table.heat td.none { color: var(--soft); } table.heat th { padding-left: 4px; } table.heat small { display:
block; font-size: 11px; opacity: 0.72; } .strip { display: grid; grid-template-columns: 132px 1fr; align-items:
center; gap: 10px; margin: 5px 0; } .strip span { font-size: 13px; color: var(--soft); text-align: right; } .strip img
{ max-width: 100%; border-radius: 6px; display: block; } .scroll { overflow-x: auto; } .pair { display: grid;
grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 24px; align-items: start; } .pair img { max-width:
100%; } .corners { display: flex; justify-content: space-between; font-size: 13px; color: var(--soft); max-width:
476px; } .corners.top { justify-content: center; } svg { max-width: 100%; height: auto; color: var(--ink); } pre {
background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; overflow-x: auto;
  font-size: 13px; line-height: 1.5; }
footer { margin-top: 60px; color: var(--soft); font-size: 13px; }
"""


def page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """The whole document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{''.join(sections)}</main></body></html>\n"
    )


def section(heading: str, text: str, *content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2><p>{escape(text)}</p>{''.join(content)}</section>"


def cards(entries: Sequence[tuple[str, str]]) -> str:
    """Large figures with their names."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for label, value in entries
    )
    return f'<div class="cards">{inner}</div>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    head = "".join(f'<th class="{"number" if i else ""}">{escape(text)}</th>' for i, text in enumerate(headings))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"number" if i else ""}">{escape(cell)}</td>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def heat_map(rows: Sequence[str], columns: Sequence[str], cells: dict[tuple[str, str], tuple[float, str, str]]) -> str:
    """A table whose cells are coloured from low (red) to high (green).

    Args:
        cells: `{(row, column): (share in [0, 1] for the colour, large text, small text)}`.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for row in rows:
        line = f"<th>{escape(row)}</th>"
        for column in columns:
            if (row, column) not in cells:
                line += '<td class="none">given</td>'
                continue
            share, large, small = cells[row, column]
            hue = 8 + 132 * min(1.0, max(0.0, share))
            line += f'<td style="background:hsl({hue:.0f} 52% 74%)">{escape(large)}<small>{escape(small)}</small></td>'
        lines.append(f"<tr>{line}</tr>")
    return f'<div class="scroll"><table class="heat"><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def image(picture: Image.Image, alternative: str) -> str:
    """A picture inside the page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{encoded}">'


def labelled_strip(label: str, picture: Image.Image) -> str:
    return f'<div class="strip"><span>{escape(label)}</span>{image(picture, label)}</div>'
