"""What mkdocs does for the site besides: `make docs-site`. The docs link to examples and results
outside of their folder, which become pages of the site."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = re.compile(r"\]\(\.\./((?:examples|benchmarks)[^)#]*)(#[^)]*)?\)")
_FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Adds a page for each spec of `examples`, and one for the results of benchmarks."""
    from mkdocs.structure.files import File

    for spec in sorted((ROOT / "examples").rglob("*.etude")):
        name = spec.relative_to(ROOT)
        text = f"# {name.name}\n\n`{name}`\n\n```etude\n{spec.read_text()}\n```\n"
        files.append(File.generated(config, f"{name}.md", content=text))
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    files.append(File.generated(config, "benchmarks/RESULTS.md", content=results))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to those pages; a link to a folder leads to the list of what is in it. Of what stands
    behind the language of a fence, for the tests, Markdown in Python knows nothing."""
    markdown = _FENCE.sub(r"\1", markdown).replace("](../docs/", "](../")
    return _OUTSIDE.sub(lambda found: f"]({_page(found[1])}{found[2] or ''})", markdown)


def _page(path: str) -> str:
    if path == "examples/published":
        return "reproducing.md"
    return path if path.endswith(".md") else f"{path}.md"
