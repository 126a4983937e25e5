"""Writes docs/plan_page.png, the plan page of Llama 3 405B: `python docs/screenshot.py`.

Needs Debian's `chromium` and the development environment (playwright).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent


def main() -> None:
    from playwright.sync_api import sync_playwright

    spec = DOCS.parent / "examples" / "llama3_405b.etude"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = Path(folder) / "page.html"
        subprocess.run(
            [sys.executable, "-m", "etude.cli.main", "plan", spec, "--html", page], check=True
        )
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1000, "height": 1900}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=DOCS / "plan_page.png")
        browser.close()


if __name__ == "__main__":
    main()
