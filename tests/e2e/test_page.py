"""The playground in a real browser, under its own content policy, on a desk and on a phone."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from codepmp_ray.serve.app import create_app
from tests.unit.serve.http_fakes import KEY, SETTINGS, FakeBackend

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed here")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = create_app(SETTINGS, FakeBackend())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(("width", "height"), [(1100, 900), (360, 640)])
def test_answers_are_ranked_on_a_desk_and_on_a_phone(url: str, width: int, height: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)

        page.fill("#key", "no key of theirs")
        page.fill("#prompt", "p")
        fields = page.locator("#candidates textarea")
        fields.nth(0).fill("<b>a</b>")
        fields.nth(1).fill("the longest answer <script>alert(1)</script>")
        page.click("#add")
        fields.nth(2).fill("x")
        page.click("#score")
        page.wait_for_selector("#error:not(:empty)")
        assert "API key" in page.inner_text("#error")
        assert not page.is_visible("#results")
        assert len(wrong) == 1 and "401" in wrong.pop()  # the browser's own note of it

        page.fill("#key", KEY)
        page.click("#score")
        page.wait_for_selector("#results:not([hidden])")
        assert page.inner_text("#error") == ""
        assert "Answer 1 is the best of 3" in page.inner_text("#summary")
        texts = page.locator("#ranking pre").all_inner_texts()
        assert texts == ["the longest answer <script>alert(1)</script>", "<b>a</b>", "x"]
        widths = page.eval_on_selector_all(
            "#ranking .bar div", "bars => bars.map(bar => bar.getBoundingClientRect().width)"
        )
        assert widths == sorted(widths, reverse=True) and widths[0] > 5 * widths[-1] > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        page.wait_for_function("document.getElementById('model').textContent === ', tiny'")
        box = page.locator("#summary").bounding_box()
        assert box is not None and 0 <= box["y"] < height  # in view, on a phone too
        page.locator("#candidates button").nth(0).click()
        assert fields.count() == 2
        assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
        assert page.is_visible("#stale") and page.is_visible("#ranking")
        page.fill("#prompt", '[{"role": "user", "content": "p"}]')
        page.press("#prompt", "Control+Enter")
        page.wait_for_selector("#stale", state="hidden")
        assert page.inner_text("#state") == ""
        page.click("#many summary")
        page.fill("#pasted", '["from a list", "b"]')
        page.click("#use")
        assert fields.count() == 2 and fields.nth(0).input_value() == "from a list"
        page.click("#many summary")
        page.fill("#pasted", "one\n\ntwo\nthree")
        page.click("#use")
        assert fields.count() == 3 and page.is_visible("#stale")
        page.click("#interface summary")
        page.wait_for_selector("#routes dt")
        routes = page.locator("#routes dt").all_inner_texts()
        assert "POST /v1/bon" in routes and "POST /rerank" in routes and "GET /v1/models" in routes
        assert "candidates, top_n?" in page.inner_text("#routes").replace("\n", " ")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("#interface summary")
        page.fill("#key", "no key of theirs")
        page.click("#interface summary")
        page.wait_for_selector("#routes:empty", state="attached")
        assert "API key" in page.inner_text("#interface-note")
        assert len(wrong) == 1 and "401" in wrong.pop()

        assert wrong == []
        assert set(asked) == {url, f"{url}v1/bon", f"{url}openapi.json", f"{url}v1/models"}
        browser.close()
