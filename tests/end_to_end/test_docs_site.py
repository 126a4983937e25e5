"""`make docs-site`: the docs as a site."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.exhaustive
def test_the_site_has_no_broken_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material, of the extra `dev`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page for page in tmp_path.rglob("*.html")}
    assert {"index.html", "coming.html", "errors/E214.html", "benchmarks/RESULTS.html"} <= set(
        pages
    )
    assert "examples/quickstart.etude.html" in pages
    loaded = re.compile(r'(?:<script[^>]* src|<link[^>]* rel="stylesheet"[^>]* href)="http')
    assert [name for name, page in pages.items() if loaded.search(page.read_text())] == []
