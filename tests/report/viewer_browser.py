"""A viewer opened in a browser, and what tests ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")

# Of every text that is seen: what it says, and its contrast with what lies behind it (WCAG 2.2, relative luminance).
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0.99) return found;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, box = element.getBoundingClientRect();
    if (!node.textContent.trim() || !box.width || element.closest("script, style, noscript, canvas")) continue;
    const style = getComputedStyle(element), color = element.closest("svg") ? style.fill : style.color;
    const [one, other] = [light(channels(color)), light(behind(element))].sort((a, b) => b - a);
    found.push([node.textContent.trim().slice(0, 40), (one + 0.05) / (other + 0.05)]);
  }
  return found;
}"""


class Viewer:
    """A page with what happened in it: requests, messages on the console, errors."""

    def __init__(self, page: Any) -> None:
        self.page, self.requests, self.messages = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    def open(self, path: Path) -> Viewer:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")
        return self

    @property
    def milliseconds(self) -> int:
        """From the beginning of the navigation until all is drawn."""
        return int(self.page.evaluate("document.documentElement.dataset.ready"))

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Where the centre of a shown pixel is in the window."""
        scale, left, top = (float(each) for each in self.page.get_attribute("#canvas", "data-view").split(","))
        self.page.locator("#canvas").scroll_into_view_if_needed()
        self.settle()
        box = self.page.locator("#canvas").bounding_box()
        return box["x"] + 1 + left + (column + 0.5) * scale, box["y"] + 1 + top + (row + 0.5) * scale

    def hover(self, row: int, column: int) -> None:
        self.page.mouse.move(*self.position(row, column))

    def told(self, key: str) -> str | None:
        """What is said of the pixel under a key; None if nothing is."""
        found = self.page.locator(f"dd[data-key={key}]")
        return found.inner_text() if found.count() else None

    def probabilities(self) -> dict[int, float]:
        """The probabilities that are listed, in percent, by class id."""
        of_each = "all => all.map(each => [Number(each.dataset.id), parseFloat(each.textContent)])"
        return dict(self.page.eval_on_selector_all("#probabilities .amount", of_each))

    def spectrum(self) -> list[float | None]:
        """The values of all bands, None where there is none."""
        lines = self.page.locator("#values").text_content().splitlines()[1:]
        return [float(line.split(",")[2]) if line.split(",")[2] else None for line in lines]

    def color(self, row: int, column: int) -> tuple[int, ...]:
        """The colour that the canvas has a little off a shown pixel's centre, where no mark lies: red, green, blue, alpha."""
        self.settle()
        ask = """([row, column]) => {
          const canvas = document.getElementById("canvas"), [scale, left, top] = canvas.dataset.view.split(",").map(Number);
          const place = [left + (column + 0.75) * scale, top + (row + 0.75) * scale];
          const at = place.map((each) => Math.round(each * devicePixelRatio));
          const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, -at[0], -at[1]);
          return [...copy.getImageData(0, 0, 1, 1).data];
        }"""
        return tuple(self.page.evaluate(ask, [row, column]))

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def contrasts(self) -> dict[str, float]:
        return dict(self.page.evaluate(CONTRASTS))

    def facts(self) -> dict[str, Any]:
        return json.loads(self.page.locator("#facts").text_content())


@contextmanager
def launched() -> Iterator[Any]:
    """A browser without a window; the test is skipped where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the viewer is tested in a browser by playwright, which is not here"
    )
    if not CHROMIUM.is_file():
        pytest.skip(f"the viewer is tested in a browser, and there is no {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
