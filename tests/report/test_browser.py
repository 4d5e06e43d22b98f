"""The page in headless Chromium: no overflow, no missing figure, no console message, at any width and scheme.

Install it with `apt-get install chromium`; without it these tests are skipped.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import make_run

from lazyexp.report import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium (apt-get install chromium)"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
]
RULES = (
    "backprop", "lazy", "mistake_gated", "confidence", "random", "ordered_sgd", "selective_backprop", "infobatch",
    "kakurenbo", "early_stopping", "evolved_sampling", "order_dp", "progressive", "fast_lazy", "spaced", "top_loss",
    "self_paced",
)  # fmt: skip
# Shows the page in a frame of the given width (Chromium's own windows are at least 500 pixels wide), opens every
# folded section, and writes what it measured into the document's title.
FRAME = """<!doctype html><html><head><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style></head><body>
<iframe id="page" src="report.html" width="{width}" height="844"></iframe><script>
const frame = document.getElementById("page"), messages = [];
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  frame.contentWindow.onerror = (message) => messages.push(message);
  const accuracy = [...page.querySelectorAll("td")].find((cell) => /^9\\d\\.\\d/.test(cell.textContent));
  const folded = root.scrollWidth, box = accuracy.getBoundingClientRect();
  page.querySelectorAll("details").forEach((part) => (part.open = true));
  const images = [...page.querySelectorAll("img")], outside = [];
  for (const element of page.querySelectorAll("body *")) {{
    const scrolls = element.closest(".table") && !element.matches(".table");
    if (!scrolls && element.getBoundingClientRect().right > root.clientWidth + 1 && element.tagName !== "INPUT")
      outside.push(element.tagName + " " + element.textContent.slice(0, 40));
  }}
  document.title = JSON.stringify({{
    width: root.clientWidth, folded, open: root.scrollWidth, images: images.length, outside,
    missing: images.filter((image) => !image.complete || !image.naturalWidth).length, messages,
    accuracy: [box.left, box.right, box.top],
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  }});
}};
</script></body></html>"""


def curve(rule: str, seed: int, n: int, width: int = 50) -> tuple[float, ...]:
    draw = random.Random(f"{rule}{width}{seed}")
    end = 0.97 + draw.gauss(0, 0.002) - 0.0006 * RULES.index(rule)
    return tuple(end - 0.3 * 2 ** (-0.9 * k) for k in range(1, n + 1))


@pytest.fixture(scope="module", params=[2, 6, 17, 300])
def page(request, tmp_path_factory):
    """Reports of 2, 6 and 17 rules with three seeds, and of 300 groups of two rules."""
    top = tmp_path_factory.mktemp(f"runs{request.param}")
    if request.param == 300:
        for width in range(1, 301):
            for rule in RULES[:2]:
                cost = 0.2 * (1 + (rule == "backprop"))
                make_run(top, rule, cost=cost, accuracies=curve(rule, 0, 4, width), model__width=width)
    else:
        for i, rule in enumerate(RULES[: request.param]):
            for seed in range(3):
                make_run(top, rule, seed, cost=0.1 + 0.05 * (i * 7 % 5), accuracies=curve(rule, seed, 10), val=0.9)
    return build.write_report([top])


def browse(page: Path, profile: Path, width: int, dark: bool) -> tuple[dict, str]:
    """What the script above measured, and Chromium's console."""
    frame = page.with_name(f"frame{width}.html")
    frame.write_text(FRAME.format(width=width))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    window = [f"--user-data-dir={profile}", f"--window-size={max(width, 500)},900"]
    logging = ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000", "--dump-dom"]
    command = [str(CHROMIUM), *FLAGS, *scheme, *window, *logging, frame.as_uri()]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[:500]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")), console


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_the_screen_and_shows_all_figures(page, tmp_path, width, dark):
    found, console = browse(page, tmp_path / "profile", width, dark)
    assert found["width"] == width and found["folded"] <= width and found["open"] <= width, found
    assert found["outside"] == [] and found["messages"] == [] and console == ""
    assert found["missing"] == 0 and found["images"] == len(list((page.parent / "figures").glob("*.png"))) > 3
    left, right, top = found["accuracy"]
    assert 0 <= left < right <= width
    if width == 390 and "300" not in page.parent.parent.name:
        assert top < 844  # a phone's first screen
    light = sum(map(int, re.findall(r"\d+", found["background"])[:3])) > 380
    assert light != dark
