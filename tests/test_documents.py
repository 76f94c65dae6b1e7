"""The examples in the documents run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        shortened = re.sub(r'budget="\w+"', 'budget="2s"', block)
        exec(compile(shortened, name, "exec"), {})


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md", "docs/guide.md", "docs/data.md"])
def test_links_lead_to_files(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", document.read_text()):
        link = target[0] or target[1]
        if "://" not in link:
            assert (document.parent / link).exists(), link
