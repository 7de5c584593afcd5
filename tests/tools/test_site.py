"""`make docs-site`: what it refuses, and what a reader's browser fetches."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.offline.stackfile import ROOT


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict", "-f", str(folder / "mkdocs.yml")]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_a_page_fetches_nothing_from_another_host(checkout):
    built = build(checkout)
    assert built.returncode == 0, built.stderr
    pages = {page.name: page.read_text("utf-8") for page in checkout.glob("build/site/docs/**/*.html")}
    assert "settings.html" in pages
    remote = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*")
    assert {name: found for name, text in pages.items() if (found := remote.findall(text))} == {}
    # The theme's program fetches Mermaid's from another host for a page that has such a diagram.
    assert [name for name, text in pages.items() if 'class="mermaid"' in text] == []


@pytest.mark.parametrize("link", ["[a](nowhere.md)", "[a](settings.md#nowhere)"])
def test_a_broken_link_fails(checkout, link):
    with (checkout / "docs/index.md").open("a") as page:
        page.write(f"\n{link}\n")
    assert "does not exist" in build(checkout).stderr
    assert build(checkout).returncode
