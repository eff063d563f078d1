"""The page in a real browser, asking a real server: what people do on it, with a mouse, with keys alone, on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from page_cases import HOSTILE, at_address, paged, shop
from specbeam.serve.editions import Edition

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.services
TOKEN = "0123456789abcdef"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE = "() => document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (Debian's package chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with paged() as served, at_address(served.app) as address:
        yield address


@pytest.fixture
def opened(browser: "Browser", address: str) -> "Iterator[Page]":
    page = open_page(browser, address)
    yield page
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def open_page(browser: "Browser", address: str, **options: Any) -> "Page":
    """A page that keeps what its script and its policy complain of."""
    page = browser.new_page(**options)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Security Policy" in said.text else None)
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.errors = errors  # type: ignore[attr-defined]
    page.set_default_timeout(60_000)
    page.goto(address)
    page.locator("#serving").get_by_text("60 items").wait_for()
    return page


def texts(page: "Page", selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def add(page: "Page", query: str) -> None:
    """Search, and take the first that is found."""
    before = page.locator("#history li").count()
    page.locator("#search").fill(query)
    page.locator("#found li").first.wait_for()
    page.keyboard.press("Enter")
    page.locator("#history li").nth(before).wait_for()


def test_search_add_recommend_and_explain(opened: "Page") -> None:
    opened.locator("#search").type("lip")
    opened.locator("#found li").nth(2).wait_for()
    assert texts(opened, "#found .title") == ["Lip Balm, Cherry", "Cherry lip gloss", "BALM for Lips"]
    opened.locator("#found li").nth(1).click()
    add(opened, "i17")
    assert texts(opened, "#history .id") == ["i1", "i17"]
    opened.locator("#k").fill("12")
    opened.get_by_role("button", name="Recommend", exact=True).click()
    opened.locator("#list li").nth(11).wait_for()
    listed = texts(opened, "#list .id")
    asked = opened.request.post(f"{opened.url}v1/recommend", data={"items": ["i1", "i17"], "k": 12}).json()
    assert listed == [one["item"] for one in asked["items"]]
    assert "12 items in" in opened.locator("#told").inner_text()
    assert "model 7, catalog 9" in opened.locator("#told").inner_text()
    bars = opened.locator("#list .bar").evaluate_all("all => all.map(one => one.style.getPropertyValue('--share'))")
    assert bars[0] == "1.0000"
    assert [float(bar) for bar in bars] == sorted(map(float, bars), reverse=True)
    opened.get_by_role("button", name="Explain this list").click()
    picture = opened.locator("#picture img")
    picture.wait_for()
    assert picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 300
    assert opened.locator("#picture-told a").get_attribute("download") == "explained.svg"


def test_with_keys_alone(opened: "Page") -> None:
    opened.keyboard.press("Tab")
    assert opened.evaluate("() => document.activeElement.className") == "skip"
    opened.keyboard.press("Enter")
    box = opened.locator("#search")
    assert box.evaluate("box => box === document.activeElement")
    assert box.evaluate("box => getComputedStyle(box).outlineStyle") == "solid"
    opened.keyboard.type("lip")
    opened.locator("#found li").nth(2).wait_for()
    assert box.get_attribute("aria-activedescendant") == "option-0"
    opened.keyboard.press("ArrowDown")
    assert box.get_attribute("aria-activedescendant") == "option-1"
    assert opened.locator("#option-1").get_attribute("aria-selected") == "true"
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("ArrowUp")  # from the first to the last
    assert box.get_attribute("aria-activedescendant") == "option-2"
    opened.keyboard.press("Enter")
    opened.locator("#history li").first.wait_for()
    assert box.get_attribute("aria-expanded") == "false"
    opened.keyboard.type("i20")
    opened.locator("#found li").first.wait_for()
    opened.keyboard.press("Enter")
    opened.locator("#history li").nth(1).wait_for()
    assert texts(opened, "#history .id") == ["i2", "i20"]
    opened.keyboard.press("Backspace")
    assert texts(opened, "#history .id") == ["i2"]
    assert "Removed i20" in opened.locator("#hint").inner_text()
    opened.keyboard.press("Enter")  # an empty box: ask
    opened.locator("#list li").first.wait_for()
    opened.keyboard.type("lip")
    opened.locator("#found li").first.wait_for()
    opened.keyboard.press("Escape")
    assert not opened.locator("#found").is_visible()


def test_ids_and_titles_are_pasted(opened: "Page") -> None:
    box = opened.locator("#search")
    box.fill("i3, i4,nobodys")
    box.press("Enter")
    opened.locator("#history li").nth(2).wait_for()
    assert texts(opened, "#history .id") == ["i3", "i4", "nobodys"]
    assert opened.locator("#history li.unknown .title").inner_text() == "not in the catalog"
    assert opened.locator("#hint").inner_text() == "Added 2 items; 1 not in the catalog."
    for text in ("Nail file\nCherry lip gloss", '{"user": "u1", "items": ["i7", 8]}'):
        before = opened.locator("#history li").count()
        box.evaluate(
            "(box, text) => { const data = new DataTransfer(); data.setData('text/plain', text);"
            "box.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, cancelable: true})) }",
            text,
        )
        opened.locator("#history li").nth(before + 1).wait_for()
    assert texts(opened, "#history .id") == ["i3", "i4", "nobodys", "i3", "i1", "i7", "8"]
    opened.get_by_role("button", name="Recommend", exact=True).click()
    opened.locator("#told").get_by_text("2 items of the history not in the catalog").wait_for()
    opened.get_by_role("button", name="Remove Nail file").first.click()
    assert texts(opened, "#history .id")[0] == "i4"
    opened.get_by_role("button", name="Clear the history").click()
    assert texts(opened, "#history .id") == []


def test_errors_are_shown_with_their_field(opened: "Page") -> None:
    opened.get_by_role("button", name="Recommend", exact=True).click()
    error = opened.get_by_role("alert")
    error.wait_for()
    assert error.inner_text() == "items: add at least one item to the history"
    add(opened, "lip")
    opened.locator("#k").fill("61")
    opened.get_by_role("button", name="Recommend", exact=True).click()
    error.get_by_text("k:").wait_for()
    assert "60" in error.inner_text()
    assert opened.locator("#k").get_attribute("aria-invalid") == "true"
    opened.locator("#k").fill("5")
    opened.get_by_role("button", name="Recommend", exact=True).click()
    opened.locator("#list li").nth(4).wait_for()
    assert not error.is_visible()
    assert opened.locator("#k").get_attribute("aria-invalid") is None


def test_the_options_are_asked_for(opened: "Page") -> None:
    add(opened, "i1")
    opened.locator("#k").fill("60")
    opened.locator("#mode").select_option("sampled")
    opened.locator("#seed").fill("3")
    opened.locator("#exclude").check()
    with opened.expect_request("**/v1/recommend*") as asked:
        opened.get_by_role("button", name="Recommend", exact=True).click()
    assert asked.value.post_data_json == {
        "items": ["i1"], "k": 60, "exclude_history": True, "mode": "sampled", "seed": 3, "stats": True,
    }  # fmt: skip
    opened.locator("#list li").nth(58).wait_for()
    assert "i1" not in texts(opened, "#list .id")
    opened.locator("#mode").select_option("tolerant")
    assert not opened.locator("#seed").is_visible()
    opened.locator("#slack").fill("0.5")
    with opened.expect_request("**/v1/recommend*") as asked:
        opened.get_by_role("button", name="Recommend", exact=True).click()
    assert asked.value.post_data_json["slack"] == 0.5
    opened.get_by_role("button", name="Recommend", exact=True).wait_for()


def test_hostile_titles_are_text(opened: "Page") -> None:
    title = opened.title()
    for item in range(5, 10):
        add(opened, f"i{item}")
    assert texts(opened, "#history .title")[:3] == [*HOSTILE[:2], "<b>Shampoo & Conditioner</b>"]
    opened.locator("#search").fill("onerror")
    opened.locator("#found li").first.wait_for()
    opened.locator("#search").fill("")
    opened.locator("#k").fill("60")
    opened.get_by_role("button", name="Recommend", exact=True).click()
    opened.locator("#list li").nth(59).wait_for()
    assert HOSTILE[0] in texts(opened, "#list .title")
    for selector in ("#history", "#list", "#found"):
        assert opened.locator(selector).locator("img, script, b, iframe").count() == 0
    assert opened.evaluate(WIDE) <= 0
    opened.get_by_role("button", name="Explain this list").click()
    opened.locator("#picture img").wait_for()
    assert opened.title() == title


def test_live_figures_follow_what_is_asked_and_rest_while_hidden(opened: "Page") -> None:
    add(opened, "i1")
    with opened.expect_response("**/v1/figures"):
        opened.get_by_role("button", name="Recommend", exact=True).click()
    opened.locator("#list li").first.wait_for()
    opened.locator("#p50").get_by_text("ms").wait_for()
    assert float(opened.locator("#rate").inner_text()) >= 0
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange')) }"
    )
    opened.wait_for_timeout(1500)  # what was on its way
    asked.clear()
    opened.wait_for_timeout(2500)
    assert asked == []
    with opened.expect_response("**/v1/figures"):
        opened.evaluate("() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')) }")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "light"), (320, "dark"), (1280, "dark")])
def test_every_screen(browser: "Browser", address: str, width: int, scheme: Any, tmp_path: Path) -> None:
    page = open_page(browser, address, viewport={"width": width, "height": 740}, color_scheme=scheme)
    page.get_by_role("button", name="Try an example").click()
    page.locator("#list li").nth(9).wait_for()
    add(page, "i9")  # 500 letters without a space
    page.locator("#k").fill("60")
    page.get_by_role("button", name="Recommend", exact=True).click()
    page.locator("#list li").nth(59).wait_for()
    page.get_by_role("button", name="Explain this list").click()
    page.locator("#picture img").wait_for()
    page.locator("#search").fill("i")
    page.locator("#found li").first.wait_for()
    assert page.evaluate(WIDE) <= 0
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 28)"
    assert dark == (scheme == "dark")
    for target in page.locator("button:visible, input:visible, select:visible").all():
        box = target.bounding_box()
        assert box is not None
        assert box["width"] >= 18
        assert box["height"] >= 18
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def test_a_token_is_asked_for_once_and_kept_in_the_tab(browser: "Browser") -> None:
    with paged(token=TOKEN) as served, at_address(served.app) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("This server asks for a token").fill("wrong, and long enough")
        page.get_by_role("button", name="Use it").click()
        page.get_by_label("This server refuses that token").fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        page.locator("#serving").get_by_text("60 items").wait_for()
        add(page, "i1")
        page.get_by_role("button", name="Recommend", exact=True).click()
        page.locator("#list li").first.wait_for()
        assert page.evaluate("() => [Object.keys(sessionStorage), localStorage.length, document.cookie]") == [
            ["specbeam-token"], 0, "",
        ]  # fmt: skip
        page.reload()
        page.locator("#serving").get_by_text("60 items").wait_for()
        assert not page.locator("#token").is_visible()
        page.close()


def test_several_models_and_a_server_that_goes_away(browser: "Browser") -> None:
    with paged(shop(), shop(("Brush",))) as served:
        with at_address(served.app) as address:
            page = open_page(browser, address)
            page.locator("#model").select_option("shop1")
            add(page, "brush")
            page.get_by_role("button", name="Recommend", exact=True).click()
            page.locator("#list li").first.wait_for()
            served.service.models.add(Edition("shop1", "8", "10", shop(("Brush",))))
            page.locator("#serving").get_by_text("shop1 8, catalog 10").wait_for()
            assert page.locator("#model").input_value() == "shop1"
        page.locator("#serving").get_by_text("The server cannot be reached.").wait_for()
        page.get_by_role("button", name="Recommend", exact=True).click()
        page.get_by_role("alert").get_by_text("the server cannot be reached").wait_for()
        page.close()
