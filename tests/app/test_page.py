"""The page in a browser: searching, cards, explanations, links, broken input, the keyboard, a narrow screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.app.conftest import HOSTILE, LONG, MAX_PIXELS
from tests.support.browser import WatchedPage
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.app.conftest import Server

CARDS = "#hits-0 .ciea-card"
ALERT = "#status .ciea-alert"
REASON = "#reason dialog.ciea-why[open]"


def search(page: Any, text: str) -> None:
    """Type a text and press Enter; returns when the hits are there."""
    page.get_by_label("Text", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.locator(CARDS).first.wait_for()


def drop(page: Any, path: Path) -> None:
    """Choose an image file."""
    page.locator("#image input[type=file]").set_input_files(str(path))


def texts(page: Any, selector: str) -> list[str]:
    return list(page.locator(selector).all_text_contents())


def test_a_text_finds_hits_of_both_models_side_by_side(page: Any) -> None:
    search(page, "a red cat")
    assert texts(page, ".ciea-title") == ["first", "second"]
    assert page.locator("#hits-1 .ciea-card").count() == page.locator(CARDS).count() == 6
    assert texts(page, "#hits-0 .ciea-rank") == ["1", "2", "3", "4", "5", "6"]
    left, right = (page.locator(f"#hits-{number}").bounding_box() for number in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"] + 1
    assert texts(page, "#hits-0 .ciea-score") != texts(page, "#hits-1 .ciea-score")


def test_cards_show_whole_captions_and_whole_images(page: Any) -> None:
    search(page, "a red cat")
    captions = texts(page, "#hits-0 .ciea-caption")
    assert {"the red cat", LONG, HOSTILE} <= set(captions)
    assert page.locator("#hits-0 script").count() == 0
    wide = page.locator("#hits-0 [data-hit='img-wide']")
    caption = wide.locator(".ciea-caption")
    assert caption.evaluate(
        "node => node.scrollHeight <= node.clientHeight + 1 && node.scrollWidth <= node.clientWidth"
    )
    image = wide.locator("img")
    assert image.evaluate("node => [node.naturalWidth, node.naturalHeight]") == [300, 60]
    box = image.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(300 / 60, rel=0.05)
    assert page.locator("#hits-0 [data-hit='img-bare'] img").get_attribute("alt") == "image img-bare"


def test_an_image_finds_itself_first(page: Any, tmp_path: Path) -> None:
    toy_image(3, size=(64, 64)).save(tmp_path / "query.png")
    drop(page, tmp_path / "query.png")
    page.locator(CARDS).first.wait_for()
    assert texts(page, "#hits-0 .ciea-id")[0] == "img-bare"
    assert texts(page, "#hits-0 .ciea-score")[0] == "1.0000"
    alone = texts(page, "#hits-0 .ciea-score")
    search(page, "bread and apple")
    page.wait_for_url("**q=bread**")
    assert texts(page, "#hits-0 .ciea-score") != alone  # text and image together


def test_the_filter_keeps_one_kind(page: Any) -> None:
    search(page, "a red cat")
    page.get_by_label("Texts").click()
    page.wait_for_url("**kind=text**")
    assert texts(page, "#hits-0 .ciea-kind") == ["text", "text"]
    page.get_by_label("Images").click()
    page.wait_for_url("**kind=image**")
    assert set(texts(page, "#hits-1 .ciea-kind")) == {"image"}


def test_a_click_shows_why_and_a_new_search_removes_it(page: Any) -> None:
    search(page, "a red cat")
    for number, name in enumerate(("first", "second")):  # with an extractor, and without
        page.locator(f"#hits-{number} [data-hit='img-cat']").click()
        page.locator(REASON).wait_for()
        assert texts(page, f"{REASON} h2") == [f"Why {name} found img-cat"]
        assert page.locator(f"{REASON} img").evaluate("node => node.naturalWidth") > 500
        score = page.locator(f"#hits-{number} [data-hit='img-cat'] .ciea-score").text_content()
        assert texts(page, ".ciea-reading")[0].startswith(
            f"The score is {score}. With the whole image painted over it is "
        )
        page.get_by_role("button", name="Close").click()
        page.locator(REASON).wait_for(state="hidden")
    search(page, "a blue boat")
    page.wait_for_url("**boat**")
    page.locator("#reason dialog").wait_for(state="detached")
    assert page.get_by_text("Click an image to see why it was found.").is_visible()
    assert page.locator("[aria-busy]").count() == 0
    assert page.locator("#hits-0 article.ciea-text").count() == 2  # texts have no map


def test_a_link_repeats_the_search(page: Any, server: Server, browser: Any) -> None:
    search(page, "a red cat & <b>")
    page.get_by_label("Images").click()
    page.wait_for_url("**kind=image**")
    link = page.locator("#link input, #link textarea").input_value()
    assert link == page.url == f"{server.url}/?q=a+red+cat+%26+%3Cb%3E&kind=image"
    other = WatchedPage(browser)
    other.page.goto(link)
    other.page.locator(CARDS).first.wait_for()
    assert other.page.get_by_label("Text", exact=True).input_value() == "a red cat & <b>"
    assert other.page.get_by_label("Images").is_checked()
    assert texts(other.page, "#hits-0 .ciea-score") == texts(page, "#hits-0 .ciea-score")
    other.close()


def test_examples_are_links(page: Any) -> None:
    page.get_by_role("link", name="a red cat").click()
    page.locator(CARDS).first.wait_for()
    assert page.get_by_label("Text", exact=True).input_value() == "a red cat"


def test_a_broken_image_gets_a_readable_error(page: Any, tmp_path: Path) -> None:
    search(page, "a red cat")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing of an image")
    drop(page, tmp_path / "broken.png")
    page.locator(ALERT).wait_for()
    (message,) = texts(page, ALERT)
    assert message.startswith("The image cannot be decoded; it must be a valid file in one of the formats PNG, ")
    assert page.locator(CARDS).count() == 0


def test_an_image_of_too_many_pixels_gets_a_readable_error(page: Any, tmp_path: Path) -> None:
    Image.new("L", (MAX_PIXELS // 100, 101)).save(tmp_path / "large.png")
    drop(page, tmp_path / "large.png")
    page.locator(ALERT).wait_for()
    assert texts(page, ALERT) == [f"The image has 1000 x 101 pixels; the maximum is {MAX_PIXELS}."]


def test_a_file_that_is_too_large_is_refused(browser: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(2 << 20))
    watched = WatchedPage(browser)
    watched.page.goto(server.url)
    drop(watched.page, tmp_path / "large.png")
    watched.page.get_by_text("maximum").first.wait_for()
    watched.errors.clear()  # the browser logs the status 413
    watched.close()


def test_the_keyboard_is_enough(page: Any) -> None:
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.type("a red cat")
    page.keyboard.press("Enter")
    page.locator(CARDS).first.wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('[data-hit]')"):
            break
    name = page.evaluate("document.activeElement.dataset.hit")
    page.keyboard.press("Enter")
    page.locator(REASON).wait_for()
    assert texts(page, f"{REASON} h2") == [f"Why first found {name}"]
    page.wait_for_function("document.activeElement.matches('.ciea-close')")
    page.keyboard.press("Escape")
    page.locator(REASON).wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.hit") == name


def test_a_narrow_screen_has_one_column(browser: Any, server: Server) -> None:
    watched = WatchedPage(browser, width=360, height=720)
    page = watched.page
    page.goto(f"{server.url}/?q=a+red+cat")
    page.locator(CARDS).first.wait_for()
    page.wait_for_function("document.querySelector('.ciea-card').getBoundingClientRect().top < window.innerHeight")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    first, second = (page.locator(f"#hits-{number}").bounding_box() for number in (0, 1))
    assert first["y"] + first["height"] <= second["y"] + 1
    page.locator("#hits-0 [data-hit='img-cat']").click()
    page.locator(REASON).wait_for()
    box = page.locator(REASON).bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    watched.close()


def test_a_link_with_invalid_values_opens_the_page(browser: Any, server: Server) -> None:
    watched = WatchedPage(browser)
    watched.page.goto(f"{server.url}/?q=cat&kind=video&k=7")
    watched.page.locator(CARDS).first.wait_for()
    watched.page.wait_for_url(f"{server.url}/?q=cat")
    watched.close()
