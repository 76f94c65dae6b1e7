"""The examples in the documents run as they stand."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md", "docs/guide.md"])
def test_links_lead_to_files(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", document.read_text()):
        link = target[0] or target[1]
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_every_method_has_a_page_with_its_paper_its_limits_and_its_command() -> None:
    folder = ROOT / "docs" / "methods"
    index = (folder / "README.md").read_text()
    for name, method in METHODS.items():
        if name == "flow":
            continue
        page = (folder / f"{name.replace('+', '-plus')}.md").read_text()
        assert f"(`{name}`)" in page
        assert f"--method {name} " in page
        for part in (method.paper, method.cost, "## Maths", "## When to use it", "## Limitations", "Published: "):
            assert part in page, (name, part)
        assert f"[{name}]" in index
