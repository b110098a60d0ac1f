"""The page in a real browser, as people use it: with mouse, keyboard and a narrow screen."""

import io
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from serving_service import Running, png, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser", service: Running) -> "Iterator[Page]":
    """A page without errors and without requests to other hosts."""
    context = browser.new_context(viewport={"width": 1200, "height": 850}, accept_downloads=True)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if _is_foreign(request.url, service) else None)
    page.set_default_timeout(120_000)
    page.goto(service.url)
    page.wait_for_selector("#model option", state="attached")
    yield page
    context.close()
    assert not problems


def _is_foreign(url: str, service: Running) -> bool:
    return not url.startswith((service.url, "blob:", "data:"))


def _send(page: "Page", *pictures: tuple[str, bytes]) -> None:
    files = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in pictures]
    page.set_input_files("#choose", files)  # type: ignore[arg-type]  # dictionaries of this form
    page.wait_for_selector("#restore:not([disabled])")


def _restore(page: "Page") -> None:
    page.select_option("#model", "srcnn-x2")
    page.click("#restore")
    page.wait_for_selector(".picture.current a:not([hidden])")


def _screenshot(page: "Page") -> np.ndarray:
    page.wait_for_timeout(700)  # views are fetched after a pause
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def test_restore_and_download(page: "Page", service: Running, tmp_path: Path) -> None:
    content = png(120, 80)
    _send(page, ("my picture.png", content))
    _restore(page)
    assert "240 × 160 px" in page.inner_text("#about")
    with page.expect_download() as download:
        page.click(".picture a")
    assert download.value.suggested_filename == "my picture-restored.png"
    download.value.save_as(tmp_path / "result.png")
    with service.client() as client:
        direct = client.post("/v1/restore", params={"model": "srcnn-x2"}, content=content).content
    assert (tmp_path / "result.png").read_bytes() == direct


def test_real_pixels_are_exact(page: "Page", service: Running) -> None:
    """At 100 %, the screen shows the pixels of the file: of the result right of the divider."""
    content = png(120, 80)
    _send(page, ("a.png", content))
    _restore(page)
    page.click("#real")
    page.fill("#split", "0")  # only the result
    shown = _screenshot(page)
    with service.client() as client:
        restored = client.post("/v1/restore", params={"model": "srcnn-x2"}, content=content).content
    expected = np.asarray(Image.open(io.BytesIO(restored))).astype(int)
    middle = shown.shape[0] // 2, shown.shape[1] // 2
    found = min(
        abs(shown[y : y + 100, x : x + 100] - expected[20:120, 20:120]).max()
        for y in range(middle[0] - 62, middle[0] - 57)
        for x in range(middle[1] - 102, middle[1] - 97)
    )
    assert found == 0


def test_the_divider_by_mouse_and_keyboard(page: "Page") -> None:
    _send(page, ("a.png", png(120, 80)))
    _restore(page)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.up()
    assert abs(float(page.input_value("#split")) - 250) < 10
    page.focus("#split")
    page.keyboard.press("End")
    assert page.input_value("#split") == "1000"
    before = _screenshot(page)
    page.keyboard.press("Home")
    assert abs(_screenshot(page) - before).max() > 50


def test_zoom_and_pan_by_keyboard(page: "Page") -> None:
    _send(page, ("a.png", png(3000, 2000)))
    page.focus("#stage")
    page.keyboard.press("1")
    assert page.inner_text("#zoom") == "100 %"
    first = _screenshot(page)
    page.keyboard.press("ArrowRight")
    moved = _screenshot(page)
    assert abs(first[100:300, 160:300] - moved[100:300, 100:240]).max() == 0, "60 px to the right"
    page.keyboard.press("+")
    assert page.inner_text("#zoom") == "200 %"
    page.keyboard.press("0")
    assert int(page.inner_text("#zoom").split()[0]) < 40


def test_a_large_picture_is_fetched_in_parts(page: "Page", tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(3000, 2500))
    page.set_input_files("#choose", path)
    page.wait_for_selector("#restore:not([disabled])")
    with page.expect_response(lambda answer: "box=" in answer.url) as found:
        page.click("#real")
    size = int(found.value.headers["content-length"])
    assert 10_000 < size < 4_500_000 < path.stat().st_size


def test_a_preview_and_strength(page: "Page") -> None:
    with page.expect_response(lambda answer: "crop=" in answer.url and answer.status == 200):
        _send(page, ("a.png", png(600, 500)))
    with page.expect_response(lambda answer: "strength=0.4" in answer.url and "crop=" in answer.url):
        page.fill("#strength", "40")
    assert page.inner_text("#strength-value") == "40 %"


def test_cancel(page: "Page") -> None:
    _send(page, ("slow.png", png(1200, 1200)))
    page.select_option("#model", "mimo-unet-small")
    page.click("#restore")
    page.wait_for_selector("text=restoring")
    page.click(".picture button:has-text('Cancel')")
    page.wait_for_selector("text=not restored")
    _restore(page)  # the worker is free
    page.select_option("#model", "mimo-unet-small")
    page.click("#restore")
    page.wait_for_selector(".picture button:has-text('Cancel')")
    assert page.is_hidden(".picture.current a")
    page.click(".picture button:has-text('Cancel')")
    page.wait_for_selector(".picture.current a:not([hidden])")  # the earlier result is there again
    page.wait_for_selector("#status:has-text('slow.png is cancelled')")
    assert page.inner_text(".picture .state") == "restored"
    assert "srcnn-x2" in page.inner_text("#about")


def test_a_server_that_is_away_for_a_moment(page: "Page") -> None:
    """The page tries again: to restore, to follow the job, to show and to download the result."""
    _send(page, ("a.png", png(120, 80)))
    page.wait_for_selector("#status:has-text('frame')")
    refused: set[str] = set()

    def refuse_first(route: "Route") -> None:
        path = route.request.url.partition("?")[0]
        if path in refused:
            route.continue_()
        else:
            refused.add(path)
            route.abort("connectionrefused")

    page.route("**/v1/**", refuse_first)
    page.click("#restore")
    page.wait_for_selector("#status:has-text('The server does not answer. Trying again')")
    page.wait_for_selector(".picture.current a:not([hidden])")
    with page.expect_download() as download:
        page.click(".picture a")
    assert download.value.suggested_filename == "a-restored.png"
    assert {path.rpartition("/")[2] for path in refused} >= {"restore", "events", "view", "0"}


def test_a_result_that_has_expired(page: "Page", service: Running) -> None:
    """A line on the page, in place of a download that failed."""
    _send(page, ("a.png", png()))
    _restore(page)
    job = (page.get_attribute(".picture a", "href") or "").split("/")[3]
    with service.client() as client:
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
    page.click(".picture a")
    page.wait_for_selector("#status.bad:has-text('expired')")


def test_errors_are_shown(page: "Page") -> None:
    page.set_input_files("#choose", {"name": "note.txt", "mimeType": "text/plain", "buffer": b"hello"})
    page.wait_for_selector(".state.bad")
    assert page.inner_text(".state.bad") == "note.txt is not a file of a known picture format"
    assert "note.txt" in page.inner_text("#status")


def test_two_pictures_at_once(page: "Page") -> None:
    _send(page, ("a.png", png(100, 80, seed=1)), ("b.png", png(100, 80, seed=2)))
    page.wait_for_selector("#restore-all:not([disabled])")
    page.select_option("#model", "srcnn-x2")
    page.click("#restore-all")
    for number in (1, 2):
        page.wait_for_selector(f".picture:nth-child({number}) a:not([hidden])")
    downloads: list[str] = []
    page.on("download", lambda download: downloads.append(download.suggested_filename))
    page.click("#download-all")
    while len(downloads) < 2:
        page.wait_for_timeout(50)
    assert downloads == ["a-restored.png", "b-restored.png"]
    page.click(".picture:nth-child(2) .name")
    assert page.get_attribute(".picture:nth-child(2) .name", "aria-current") == "true"
    page.click(".picture:nth-child(1) button:has-text('Remove')")
    page.locator(".picture").nth(1).wait_for(state="detached")
    assert page.inner_text(".picture .name") == "b.png"


def test_dropping_a_file(page: "Page") -> None:
    transfer = page.evaluate_handle(
        """bytes => { const all = new DataTransfer();
        all.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"})); return all; }""",
        list(png()),
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("text=dropped.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_and_narrow_screens(page: "Page", scheme: str) -> None:
    """axe finds nothing, and nothing is wider than a phone."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs the package axe-playwright-python")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of two words
    page.set_viewport_size({"width": 360, "height": 700})
    _send(page, ("a_name_that_is_much_longer_than_the_screen_is_wide_in_any_font.png", png(200, 100)))
    _restore(page)
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    session = page.context.new_cdp_session(page)  # the page's own policy forbids injected scripts
    session.send("Runtime.evaluate", {"expression": script})
    answer = session.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run().then(found => found.violations.map("
            "one => one.id + ': ' + one.nodes.map(node => node.html).join(' ')))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    assert answer["result"]["value"] == []
    width = session.send("Runtime.evaluate", {"expression": "document.documentElement.scrollWidth"})
    assert width["result"]["value"] <= 360


def test_the_reference(page: "Page", service: Running) -> None:
    page.goto(f"{service.url}/docs")
    page.wait_for_selector("text=POST /v1/restore")
    text = page.inner_text("#routes")
    assert "strength" in text and "in (needed)" in text


def test_the_page_asks_for_a_token(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0")
    service = start(tmp_path, "--token-file", str(tmp_path / "token"))
    page = browser.new_page()
    page.goto(service.url)
    page.fill("#token", "0123456789abcdef0")
    page.click("#access button")
    page.wait_for_selector("#model option", state="attached")
    _send(page, ("a.png", png()))
    _restore(page)
    page.close()
    assert service.stop() == 0
