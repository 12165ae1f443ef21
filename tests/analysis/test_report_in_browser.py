"""report.html in a real browser: nothing asked of the network, nothing in the console, every picture and link, every width.

With SDPG_REPORT=results/cpu/report.html, that page as well as the one of the tests.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import Browser, find_browser

pytestmark = pytest.mark.slow
PROGRAM = find_browser()
IMAGES = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth, () => 0)))"
ANCHORS = """[...document.querySelectorAll('a[href^="#"]')].map(a => a.hash)
    .filter(hash => !document.getElementById(hash.slice(1)))"""
FILES = "[...document.links].map(a => a.href).filter(h => !h.includes('#'))"
# Boxes that stick out of the page, those inside a box that scrolls by itself left out.
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, .skip, thead')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
# Text that is squeezed into a column of a few letters, one below the other.
SQUEEZED = """[...document.querySelectorAll('th, td')].filter(e => e.innerText.trim().length > 3
    && e.getBoundingClientRect().width < 40).map(e => e.innerText)"""
# Letters of a claim's picture that stick out of it or cover others of it.
COVERED = """[...document.querySelectorAll('svg.drawing')].flatMap(svg => {
    const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')].map(e => [e.getBoundingClientRect(), e]);
    return texts.flatMap(([a, one], i) => [
        ...(a.left < box.left - 2 || a.right > box.right + 2 || a.top < box.top - 2 || a.bottom > box.bottom + 2
            ? [one.textContent] : []),
        ...texts.slice(i + 1).filter(([b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4
            && b.top < a.bottom - 4).map(([, other]) => one.textContent + ' / ' + other.textContent)])})"""
UNREACHABLE = (
    "[...document.querySelectorAll('.scroll, pre')].filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
)


@pytest.fixture(scope="module")
def browser():
    if PROGRAM is None:
        pytest.skip("no Chromium or Chrome on this machine; on Debian and Ubuntu: apt install chromium")
    with Browser(PROGRAM) as opened:
        yield opened


@pytest.fixture(params=["of the tests", *filter(None, [os.environ.get("SDPG_REPORT")])])
def page(request, report):
    return report[1] if request.param == "of the tests" else Path(request.param)


@pytest.mark.parametrize("width", [360, 1280])
def test_it_renders_at_the_width_of_a_phone_and_of_a_screen(browser, page, width):
    browser.open(page, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(SQUEEZED) == []
    assert browser.evaluate(UNREACHABLE) == 0
    assert browser.evaluate("document.querySelectorAll('svg.drawing').length") > 3
    assert browser.evaluate(COVERED) == []
    assert "Verdicts" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.getElementById('verdicts').offsetTop") < 900  # seen without scrolling far


def test_it_asks_nothing_of_the_network_and_logs_nothing(browser, page):
    browser.open(page, 1280)
    browser.evaluate(IMAGES)
    asked = [params["request"]["url"] for method, params in browser.events if method == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.resolve().as_uri()]
    said = [event for event in browser.events if event[0] in ("Log.entryAdded", "Runtime.consoleAPICalled")]
    assert said == []
    assert [event for event in browser.events if event[0] == "Runtime.exceptionThrown"] == []


def test_every_picture_is_shown_and_every_link_leads_somewhere(browser, page):
    browser.open(page, 1280)
    widths = browser.evaluate(IMAGES)
    assert widths
    assert min(widths) > 0
    assert browser.evaluate(ANCHORS) == []
    files = browser.evaluate(FILES)
    assert len(files) > 10
    assert [url for url in files if not Path(unquote(urlsplit(url).path)).exists()] == []


def test_a_claim_leads_to_its_figure(browser, report):
    browser.open(report[1], 390)
    browser.evaluate("document.querySelector('#claim-ends-above-grpo a').click()")
    assert browser.evaluate("location.hash") == "#figure-final_accuracy"
    assert abs(browser.evaluate("document.querySelector(':target').getBoundingClientRect().top")) < 60


def test_the_checks_can_fail(browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<html><body><h2 id='verdicts'>Verdicts</h2><a href='#none'>x</a><a href='gone.csv'>y</a>"
        "<img src='gone.png'><div style='width: 2000px'>wide</div><script>console.error('no')</script></body></html>"
    )
    browser.open(broken, 390)
    assert browser.evaluate("document.documentElement.scrollWidth") > 390
    assert browser.evaluate(OUTSIDE)
    assert browser.evaluate(ANCHORS) == ["#none"]
    assert min(browser.evaluate(IMAGES)) == 0
    assert any(method == "Runtime.consoleAPICalled" for method, _ in browser.events)
    assert any("gone.png" in str(params) for method, params in browser.events if method == "Network.requestWillBeSent")
