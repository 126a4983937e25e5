"""Pages in a browser: Debian's Chromium, headless, driven by playwright."""

import os
import shutil
from typing import Any

import pytest

BROWSER = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    BROWSER is None and not os.environ.get("ETUDE_NEEDS_BROWSER"),
    reason="chromium is not installed",
)


def opened(
    browser: Any, address: str, scheme: str = "light", width: int = 1280, csp: bool = True
) -> tuple[Any, list[str]]:
    """A tab with the page, and the list that all complaints and requests go to."""
    tab = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=not csp
    ).new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else said.append(r.url)
    )
    tab.goto(address)
    return tab, said


def violations(browser: Any, address: str, scheme: str) -> list[tuple[str, str]]:
    """What axe-core finds: rules and the first element that breaks each."""
    from axe_playwright_python.sync_playwright import Axe

    tab, _ = opened(browser, address, scheme, csp=False)
    found = Axe().run(tab).response["violations"]
    tab.context.close()
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found]
