"""The examples in the documents run as they stand."""

import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

from msvae.benchmarking.tables import page
from msvae.cli.main import app
from msvae.models import METHODS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        shortened = re.sub(r'budget="\w+"', 'budget="2s"', block)
        exec(compile(shortened, name, "exec"), {})


def commands(text: str) -> list[str]:
    """The lines of a document that call `msvae`, continued lines as one; without what a shell alone understands."""
    lines = re.findall(r"^    (?:.*&& )?(msvae .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    parts = [part.strip() for line in lines for part in re.split(r"&&|\s#", line)]
    return [part for part in parts if part.startswith("msvae ") and not re.search(r"\$|\|", part)]


@pytest.mark.parametrize(
    "document", ["README.md", "docs/guide.md", "docs/data.md", "docs/flow.md", "benchmarks/README.md"]
)
def test_commands_are_understood(document: str) -> None:
    """Every option there is; nothing is asked, read or written."""
    found = commands((ROOT / document).read_text())
    assert found
    for line in found:
        command, words, context = get_command(app), shlex.split(line)[1:], None
        while isinstance(command, click.Group) and words:
            context = click.Context(command, parent=context)
            _, command, words = command.resolve_command(context, words)
            assert command is not None, line
        command.make_context(command.name, words, parent=context)


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]


def headings(document: Path) -> set[str]:
    """What a link to a part of a document may name; the second of a title has a number."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]
    return {f"{name}-{before}" if (before := names[:place].count(name)) else name for place, name in enumerate(names)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", document.read_text()):
        file, _, part = (target[0] or target[1]).partition("#")
        if "://" in file:
            continue
        there = document.parent / file if file else document
        assert there.exists(), file
        assert not part or part in headings(there), f"{file}#{part}"


def test_the_tables_are_those_of_the_results() -> None:
    made = page(ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "anchors.json")
    assert (ROOT / "docs" / "benchmarks.md").read_text() == made, "msvae bench table"


def test_every_method_has_a_page_with_its_paper_its_limits_and_its_command() -> None:
    folder = ROOT / "docs" / "methods"
    index = (folder / "README.md").read_text()
    for name, method in METHODS.items():
        if name == "flow":
            continue
        text = (folder / f"{name.replace('+', '-plus')}.md").read_text()
        assert f"(`{name}`)" in text
        assert f"--method {name} " in text
        for part in (method.paper, method.cost, "## Maths", "## When to use it", "## Limitations", "Published: "):
            assert part in text, (name, part)
        assert f"[{name}]" in index
