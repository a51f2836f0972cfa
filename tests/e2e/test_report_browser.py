"""The page in a real browser: wide and narrow, light and dark, with hostile answers in it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from lichen.core.generation import Step
from lichen.report import html
from lichen.testing.records import fake_run
from lichen.testing.summaries import fake_route, fake_summary

pytestmark = pytest.mark.browser

HOSTILE_NAME = 'green"><img src=x onerror=document.title="owned">'
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}

PROBE = """
const body = getComputedStyle(document.body);
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((x) => {
    const v = x / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
const paper = body.backgroundColor;
const against = (selector) =>
  [...document.querySelectorAll(selector)].map((e) => contrast(getComputedStyle(e).color, paper));
const shown = [...document.querySelectorAll("svg[role=img]")]
  .map((e) => ({ box: e.getBoundingClientRect(), name: e.getAttribute("aria-label") }))
  .filter((e) => e.box.width > 0);
const texts = [...document.querySelectorAll("svg[role=img] text")]
  .filter((e) => e.getBoundingClientRect().width > 0);
const verdict = document.getElementById("verdict").getBoundingClientRect();
return {
  title: document.title,
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  paper: luminance(paper),
  contrasts: {
    body: Math.min(...against("p, dd, dt, td, th, li, figcaption, .sub, .range")),
    accent: Math.min(...against("a, summary, .brand")),
    series: Math.min(...against(".s0, .s1")),
    drawn: Math.min(...texts.filter((e) => !getComputedStyle(e).fill.includes("none"))
      .filter((e) => !/prefill|decode|sandbox|idle/.test(e.textContent))
      .map((e) => contrast(getComputedStyle(e).fill, paper))),
  },
  charts: shown.map((e) => ({ name: e.name, width: e.box.width, height: e.box.height })),
  smallestText: Math.min(...texts.map((e) => e.getBoundingClientRect().height)),
  verdict: { top: verdict.top, bottom: verdict.bottom, text: document.getElementById("verdict").innerText },
  resources: performance.getEntriesByType("resource").map((e) => e.name),
  tools: !document.getElementById("problem-tools").hidden,
};
"""


class Browser:
    """A headless Chromium behind its driver's plain HTTP protocol."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self.http = http
        self.session = session

    def call(self, path: str, body: dict[str, Any]) -> Any:
        """Send a command of the session; its answer's value."""
        reply = self.http.post(f"/session/{self.session}/{path}", json=body)
        value = reply.json()["value"]
        assert reply.is_success, value
        return value

    def devtools(self, command: str, **params: Any) -> Any:
        """Send a DevTools command."""
        return self.call("goog/cdp/execute", {"cmd": command, "params": params})

    def script(self, source: str) -> Any:
        """Run a function body in the page; what it returns."""
        return self.call("execute/sync", {"script": source, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Take what a log gathered since it was last taken."""
        return self.call("se/log", {"type": kind})

    def show(self, page: Path, size: tuple[int, int], scheme: str) -> None:
        """Open a page on a screen of that size and colour scheme."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size[0] < 600,
        )
        self.devtools(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.call("url", {"url": page.as_uri()})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver on PATH")
    home = tmp_path_factory.mktemp("chromium")
    log = home / "driver.log"
    with log.open("wb") as sink:
        process = subprocess.Popen([driver, "--port=0"], stdout=sink, stderr=sink)
    try:
        port = _port(log, process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            yield from _session(http, chromium, home)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(300):
        for line in log.read_text(errors="replace").splitlines():
            if "started successfully on port" in line:
                return int(line.rstrip(".").rsplit(" ", 1)[1])
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.1)
    pytest.fail("the driver did not start in 30 s")


def _session(http: httpx.Client, chromium: str, home: Path) -> Iterator[Browser]:
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        f"--user-data-dir={home / 'profile'}",
    ]
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": chromium, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    reply = http.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
    assert reply.is_success, reply.text
    session = reply.json()["value"]["sessionId"]
    yield Browser(http, session)
    with contextlib.suppress(httpx.HTTPError):
        http.delete(f"/session/{session}")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("plain", HOSTILE_NAME)
    fake = fake_run(solutions=names)
    target = tmp_path_factory.mktemp("page") / "report.html"
    route = fake_route(HOSTILE_NAME, others=(("plain", 8.0, 0.56),))
    summary = replace(fake_summary(names), routes=(route,))
    step = Step(actor="stop_when_complete", action=HOSTILE_NAME, detail=HOSTILE_NAME)
    samples = [replace(s, ledger=(step,)) if s.solution != "plain" else s for s in fake.samples]
    text = html.render(fake.run, samples, summary, elsewhere=[fake_summary(names, region="DNK")])
    target.write_text(text, encoding="utf-8")
    return target


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", list(SCREENS))
def test_the_page_reads_well_and_stays_alone(
    browser: Browser, page: Path, screen: str, scheme: str
) -> None:
    """At both widths and in both themes: nothing overflows, is fetched, fails or is too faint."""
    browser.log("browser"), browser.log("performance")  # forget what came before
    browser.show(page, SCREENS[screen], scheme)
    seen = browser.script(PROBE)
    assert seen["overflow"] <= 0
    assert (seen["paper"] > 0.8) if scheme == "light" else (seen["paper"] < 0.05)
    assert min(seen["contrasts"].values()) >= 4.5, seen["contrasts"]
    # Ratios, plane, stages, the cascade's threshold, three latencies; one variant of each.
    assert len(seen["charts"]) == 7
    for chart in seen["charts"]:
        assert chart["name"]
        assert chart["width"] > 200
        assert chart["height"] > 100
    assert seen["smallestText"] >= 10
    assert "uses less energy than plain" in seen["verdict"]["text"]
    assert 0 < seen["verdict"]["top"] < seen["verdict"]["bottom"] < SCREENS[screen][1]
    assert seen["title"] != "owned"
    assert seen["tools"]
    assert seen["resources"] == []
    assert [e for e in browser.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    assert _requests(browser) == [page.as_uri()]


def _requests(browser: Browser) -> list[str]:
    messages = [json.loads(e["message"])["message"] for e in browser.log("performance")]
    return [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]


def test_problems_can_be_found_sorted_and_opened(browser: Browser, page: Path) -> None:
    """Typing filters the problems, choosing sorts them, and an answer shows as text alone."""
    browser.show(page, SCREENS["desktop"], "light")
    found = browser.script("""
      const find = document.getElementById("problem-find");
      find.value = "HumanEval/7"; find.dispatchEvent(new Event("input"));
      const hits = [...document.querySelectorAll(".problem")].filter((e) => !e.hidden);
      const row = document.querySelector('.problem[data-id="HumanEval/0"]');
      row.open = true;
      const sort = document.getElementById("problem-sort");
      find.value = ""; sort.value = "energy"; sort.dispatchEvent(new Event("input"));
      const order = [...document.querySelectorAll(".problem")].map((e) => Number(e.dataset.energy));
      return {
        hits: hits.map((e) => e.dataset.id),
        answer: row.querySelector("pre").textContent,
        inside: row.querySelectorAll("pre *").length,
        sorted: order.every((x, i) => i === 0 || order[i - 1] >= x),
        scripts: document.scripts.length,
        images: document.images.length,
      };
    """)
    assert found["hits"] == ["HumanEval/7"]
    assert "<script>alert(1)</script>" in found["answer"]
    assert found["inside"] == 0
    assert found["sorted"]
    assert found["scripts"] == 1
    assert found["images"] == 0


def test_the_page_needs_no_script(browser: Browser, page: Path) -> None:
    """With scripts off, everything is there and only the sorting tools stay hidden."""
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(page, SCREENS["phone"], "light")
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    seen = browser.script("""
      return {
        tools: document.getElementById("problem-tools").hidden,
        problems: document.querySelectorAll(".problem").length,
      };
    """)
    assert seen == {"tools": True, "problems": 40}
