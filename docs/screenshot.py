"""Writes docs/plan_page.png and docs/gallery.png: `python docs/screenshot.py`.

Needs Debian's `chromium` and the development environment (playwright).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = {
    "plan_page.png": ("llama3_405b.html", 1000, 1900),
    "gallery.png": ("index.html", 1280, 1010),
}
"""Picture → page of the gallery, width and height in pixels."""


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        subprocess.run([sys.executable, DOCS / "gallery.py", folder], check=True)
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for picture, (page, width, height) in PICTURES.items():
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="light"
            )
            tab.goto((Path(folder) / page).as_uri())
            tab.screenshot(path=DOCS / picture)
        browser.close()


if __name__ == "__main__":
    main()
