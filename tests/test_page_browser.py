"""The pages in a real browser: what clicking, hovering, drawing and typing do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from browser import Seen, page_of, serious
from report_content import HOSTILE, colour_of, comparison_of, report_of, unlabelled_report
from tlpipe.stages.page import Matrix, Report, comparison_page, report_page

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of()


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "report.html", report_page(report))


def write(path: Path, page: str) -> Path:
    path.write_text(page, encoding="utf-8")
    return path


@contextmanager
def opened(browser: Browser, path: Path, **context: object) -> Iterator[Page]:
    """A page that has started; afterwards, it told no error and asked for nothing."""
    with page_of(browser, path, **({"viewport": WIDE} | context)) as seen:
        seen.page.wait_for_selector("html[data-ready]")
        yield seen.page
        assert_quiet(seen)


def assert_quiet(seen: Seen) -> None:
    assert seen.errors == []
    assert seen.requests == []


def shown(list_of: Locator) -> list[int]:
    """Numbers of the images that a list shows."""
    return [
        int(n)
        for n in list_of.locator(".picture").evaluate_all(
            "found => found.map(picture => picture.dataset.image)"
        )
    ]


def drawn_colour(picture: Locator) -> tuple[int, int, int]:
    """The colour in the middle of what a picture shows."""
    red, green, blue = picture.locator(".still").evaluate(
        """async (still) => {
            if (still instanceof HTMLImageElement) await still.decode();
            else while (!('drawn' in still.dataset)) await new Promise(requestAnimationFrame);
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 1;
            const context = canvas.getContext('2d');
            context.drawImage(still, 0, 0, 1, 1);
            return Array.from(context.getImageData(0, 0, 1, 1).data).slice(0, 3);
        }"""
    )
    return red, green, blue


def point_of(page: Page, report: Report, image: int) -> tuple[float, float]:
    """Where the map draws an image, by the first projection, in the window."""
    points = report.projections[0].points
    box = page.locator(".map canvas[tabindex]").bounding_box()
    assert box is not None
    low, high = points.min(axis=0), points.max(axis=0)
    scale = min((box["width"] - 56) / (high[0] - low[0]), (box["height"] - 56) / (high[1] - low[1]))
    middle = (low + high) / 2
    x, y = (points[image] - middle) * scale
    return box["x"] + box["width"] / 2 + float(x), box["y"] + box["height"] / 2 + float(y)


def alone(report: Report) -> int:
    """The image that is farthest from its nearest neighbour in the map."""
    points = report.projections[0].points
    apart = [
        min(math.dist(a, b) for k, b in enumerate(points) if k != number)
        for number, a in enumerate(points)
    ]
    return apart.index(max(apart))


def map_of(page: Page) -> Locator:
    canvas = page.locator(".map canvas[tabindex]")
    canvas.evaluate("canvas => canvas.scrollIntoView({ block: 'center', behavior: 'instant' })")
    return canvas


def test_a_cell_of_the_matrix_lists_its_images(
    browser: Browser, written: Path, report: Report
) -> None:
    images = report.images
    expected = {
        k
        for k in range(120)
        if images.judged[k] and images.labels[k] == (0,) and images.guesses[k] == (1,)
    }
    assert expected
    with opened(browser, written) as page:
        cell = page.locator('.matrix [data-true="0"][data-guess="1"]')
        assert cell.inner_text() == str(len(expected))
        cell.focus()
        page.keyboard.press("Enter")
        panel = page.locator("#confusion-panel")
        assert set(shown(panel)) == expected
        assert "of apple, taken for banana" in panel.locator("h3").inner_text()
        assert page.evaluate("document.activeElement.tagName") == "H3"
        panel.get_by_role("button", name="Close").click()
        assert panel.is_hidden()
        assert cell.evaluate("cell => cell === document.activeElement")


def test_a_confused_pair_lists_its_images_where_there_is_no_matrix(
    browser: Browser, tmp_path: Path, report: Report
) -> None:
    assert report.matrix is not None
    page_text = report_page(replace(report, matrix=Matrix(None, report.matrix.confused)))
    with opened(browser, write(tmp_path / "pairs.html", page_text)) as page:
        assert page.locator(".matrix").count() == 0
        page.locator(".row-button").first.click()
        label, _, count = report.matrix.confused[0]
        found = shown(page.locator("#confusion-panel"))
        assert len(found) == count
        assert {report.images.labels[k][0] for k in found} == {label}


def test_a_sample_is_called_one(browser: Browser, tmp_path: Path, report: Report) -> None:
    assert report.matrix is not None
    counts = [[10 * n for n in row] for row in report.matrix.counts or []]
    text = report_page(replace(report, matrix=Matrix(counts, []), count=1200))
    with opened(browser, write(tmp_path / "sample.html", text)) as page:
        page.locator(".matrix button").first.click()
        assert "This page holds a sample" in page.locator("#confusion-panel").inner_text()


def test_pictures_are_those_of_their_images(
    browser: Browser, written: Path, report: Report
) -> None:
    with opened(browser, written) as page:
        page.locator("#find-text").fill("image-000")
        page.locator("#find-text").press("Enter")
        panel = page.locator("#find-panel")
        found = shown(panel)
        assert len(found) == 48
        for image in (9, 10, 17):  # one of them larger than its tile
            picture = panel.locator(f'.picture[data-image="{image}"]')
            assert drawn_colour(picture) == colour_of(image)
        absent = panel.locator('.picture[data-image="5"]')
        assert absent.inner_text() == "image-00005.png"
        panel.get_by_role("button", name="Show 48 more of 52").click()
        assert len(shown(panel)) == 96
        assert page.evaluate("document.activeElement.dataset.image") == "48"


def test_hovering_over_the_map_shows_the_image(
    browser: Browser, written: Path, report: Report
) -> None:
    image = alone(report)
    with opened(browser, written) as page:
        map_of(page)
        page.mouse.move(*point_of(page, report, image))
        tip = page.locator(".tip")
        tip.wait_for()
        assert tip.get_attribute("data-image") == str(image)
        assert report.images.keys[image].split("/")[1] in tip.inner_text()
        label = report.classes[report.images.labels[image][0]]
        assert label in tip.inner_text()
        if report.images.tiles[image] >= 0:
            assert drawn_colour(tip) == colour_of(image)
        page.mouse.move(5, 5)
        tip.wait_for(state="hidden")


def test_a_lasso_lists_what_it_holds(browser: Browser, written: Path, report: Report) -> None:
    with opened(browser, written) as page:
        box = map_of(page).bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2
        expected = {k for k in range(120) if point_of(page, report, k)[0] > middle}
        corners = [
            (middle, box["y"] + 2),
            (box["x"] + box["width"] - 2, box["y"] + 2),
            (box["x"] + box["width"] - 2, box["y"] + box["height"] - 2),
            (middle, box["y"] + box["height"] - 2),
        ]
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*corner, steps=4)
        page.mouse.up()
        panel = page.locator("#map-panel")
        panel.wait_for()
        while panel.locator(".more").is_visible():
            panel.locator(".more").click()
        assert set(shown(panel)) == expected
        assert panel.locator("h3").inner_text() == f"{len(expected)} images inside the line"


def test_a_click_lists_what_is_there(browser: Browser, written: Path, report: Report) -> None:
    image = alone(report)
    with opened(browser, written) as page:
        map_of(page)
        page.mouse.click(*point_of(page, report, image))
        assert shown(page.locator("#map-panel"))[0] == image


def test_the_map_is_used_with_the_keyboard(browser: Browser, written: Path, report: Report) -> None:
    with opened(browser, written) as page:
        map_of(page).focus()
        page.keyboard.press("ArrowRight")
        tip = page.locator(".tip")
        first = int(tip.get_attribute("data-image") or -1)
        page.keyboard.press("ArrowRight")
        second = int(tip.get_attribute("data-image") or -1)
        points = report.projections[0].points
        assert points[second][0] > points[first][0]
        name = report.images.keys[second].split("/")[1]
        assert name in page.locator(".map [role=status]").inner_text()
        page.keyboard.press("Enter")
        assert shown(page.locator("#map-panel"))[0] == second
        assert page.evaluate("document.activeElement.tagName") == "H3"


def test_the_map_is_coloured_zoomed_and_changed(
    browser: Browser, written: Path, report: Report
) -> None:
    with opened(browser, written) as page:
        canvas = map_of(page)
        pixels = "canvas => canvas.toDataURL()"
        pictures = [canvas.evaluate(pixels)]

        def changed() -> None:
            page.wait_for_timeout(100)
            pictures.append(canvas.evaluate(pixels))
            assert pictures[-1] != pictures[-2]

        colours = page.locator("[data-map-part=colours]")
        assert colours.locator("option").all_inner_texts() == [
            "class",
            "guess",
            "right or wrong",
            "split",
        ]
        colours.select_option("right or wrong")
        changed()
        assert page.locator(".legend button").all_inner_texts() == ["right", "wrong"]
        colours.select_option("class")
        changed()
        legend = page.locator(".legend button").first
        legend.click()
        assert page.locator(".legend button").first.get_attribute("aria-pressed") == "false"
        changed()
        page.get_by_role("button", name="UMAP").click()
        changed()
        assert page.locator("#map-note").inner_text() == "What UMAP keeps."
        page.get_by_role("button", name="Zoom in").click()
        changed()
        page.get_by_role("button", name="Move").click()
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 380, box["y"] + 260, steps=4)
        page.mouse.up()
        changed()
        assert page.locator("#map-panel").is_hidden()


def test_of_many_classes_a_few_are_in_colour(browser: Browser, tmp_path: Path) -> None:
    text = report_page(report_of(200, [f"class {k}" for k in range(40)]))
    with opened(browser, write(tmp_path / "many.html", text)) as page:
        pressed = page.locator('.legend button[aria-pressed="true"]')
        assert page.locator(".legend button").count() == 40
        assert pressed.count() == 6
        for _ in range(7):
            page.locator('.legend button[aria-pressed="false"]').last.click()
        assert pressed.count() == 10
        box = page.locator(".matrix-box")
        assert box.evaluate("box => box.scrollWidth > box.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_class_of_a_blank_name_has_a_button_of_some_name(
    browser: Browser, tmp_path: Path
) -> None:
    text = report_page(report_of(20, [" ", "b"]))
    with opened(browser, write(tmp_path / "blank.html", text)) as page:
        assert "' '" in page.locator(".legend button").all_inner_texts()
        assert serious(page) == []


def test_a_table_is_sorted_by_its_columns(browser: Browser, written: Path, report: Report) -> None:
    with opened(browser, written) as page:
        table = page.locator("#classes table")
        names = table.locator("tbody th")
        recall = table.locator("thead th").filter(has=page.get_by_role("button", name="Recall"))
        recall.get_by_role("button").click()
        by_recall = sorted(report.rows, key=lambda row: -(row.recall or 0))
        assert names.all_inner_texts() == [row.name for row in by_recall]
        assert recall.get_attribute("aria-sort") == "descending"
        recall.get_by_role("button").press("Enter")
        assert names.all_inner_texts() == [row.name for row in reversed(by_recall)]
        assert recall.get_attribute("aria-sort") == "ascending"
        assert table.locator("[aria-sort]").count() == 1


def test_an_image_opens_with_its_neighbours_and_back(
    browser: Browser, written: Path, report: Report
) -> None:
    with opened(browser, written) as page:
        opener = page.locator("#mistakes .picture").first
        image = int(opener.get_attribute("data-image") or -1)
        opener.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("dialog[open]")
        assert dialog.locator("h2").inner_text() == report.images.keys[image].split("/")[1]
        assert report.images.keys[image] in dialog.inner_text()
        assert drawn_colour(dialog.locator(".detail-picture")) == colour_of(image)
        near = shown(dialog)
        assert near == report.images.neighbours[image].tolist()
        dialog.locator(".picture").nth(1).click()
        assert dialog.get_attribute("data-image") == str(near[1])
        page.keyboard.press("Escape")
        assert dialog.get_attribute("data-image") == str(image)
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert opener.evaluate("opener => opener === document.activeElement")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_keeps_people_from_using_it(
    browser: Browser, written: Path, scheme: str, size: dict[str, int]
) -> None:
    with opened(browser, written, viewport=size, color_scheme=scheme) as page:
        for summary in page.locator("summary").all():
            summary.click()
        page.locator(".matrix button").first.click()
        page.locator("#find-text").press("Enter")
        map_of(page).focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#map-panel .picture").first.click()
        assert serious(page) == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_hostile_names_are_text_and_break_nothing(
    browser: Browser, tmp_path: Path, size: dict[str, int]
) -> None:
    report = replace(report_of(60, HOSTILE, HOSTILE), title=HOSTILE[4])
    path = write(tmp_path / "hostile.html", report_page(report))
    with opened(browser, path, viewport=size) as page:
        page.locator(".matrix button").first.click()
        page.locator("#find-text").press("Enter")
        page.locator("#find-panel .picture").first.click()
        assert page.locator("dialog[open] dd").nth(1).inner_text() == HOSTILE[0]
        page.keyboard.press("Escape")
        map_of(page).focus()
        page.keyboard.press("ArrowLeft")
        assert page.title() == HOSTILE[4]
        assert page.locator("img[src=x], b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious(page) == []


def test_without_scripts_the_figures_can_be_read(browser: Browser, written: Path) -> None:
    with page_of(browser, written, java_script_enabled=False, viewport=NARROW) as seen:
        page = seen.page
        text = page.locator("main").inner_text()
        for said in ("0.857", "Of 100 new images", "cosine 0.9980", "efficientnet-lite0.in1k"):
            assert said in text
        assert page.locator(".no-script").is_visible()
        assert page.locator("#reliability svg").is_visible()
        assert page.locator("#mistakes .shot").first.is_visible()
        assert page.locator(".map").is_hidden()
        assert page.locator("#find").is_hidden()
        assert_quiet(seen)


def test_on_paper_all_is_open_and_light(browser: Browser, written: Path) -> None:
    with opened(browser, written, color_scheme="dark") as page:
        before = page.locator(".map canvas[tabindex]").evaluate("c => c.toDataURL()")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.locator("details:not([open])").count() == 0
        assert page.locator("[data-list] > [hidden]").count() == 0
        assert page.locator("#find").is_hidden()
        assert page.locator(".map-bar").is_hidden()
        assert page.locator(".map canvas[tabindex]").is_visible()
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert ink == "rgb(26, 29, 33)"
        assert page.locator(".map canvas[tabindex]").evaluate("c => c.toDataURL()") != before
        page.emulate_media(media="screen")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("getComputedStyle(document.body).color") != ink
        assert page.locator("details[open]").count() == 0
        assert len(page.pdf()) > 10_000


def test_motion_is_not_forced_on_anyone(browser: Browser, written: Path) -> None:
    with opened(browser, written, reduced_motion="reduce") as page:
        behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(behaviour) == "auto"


def test_unlabelled_images_have_a_map_and_their_neighbours(
    browser: Browser, tmp_path: Path
) -> None:
    path = write(tmp_path / "unlabelled.html", report_page(unlabelled_report()))
    with opened(browser, path) as page:
        map_of(page).focus()
        page.keyboard.press("ArrowUp")
        assert "no label" in page.locator(".tip").inner_text()
        page.keyboard.press("Enter")
        page.locator("#map-panel .picture").first.click()
        assert page.locator("dialog[open] .picture").count() == 4
        assert serious(page) == []


def test_one_image_is_enough(browser: Browser, tmp_path: Path) -> None:
    one, report = report_of(1), unlabelled_report()
    report = replace(
        report,
        images=one.images,
        projections=one.projections,
        near_duplicates=None,
        classes=one.classes,
        count=1,
    )
    with opened(browser, write(tmp_path / "one.html", report_page(report))) as page:
        map_of(page).focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        assert page.locator(".tip").get_attribute("data-image") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_comparison_can_be_used(
    browser: Browser, tmp_path: Path, scheme: str, size: dict[str, int]
) -> None:
    path = write(tmp_path / "comparison.html", comparison_page(comparison_of()))
    with opened(browser, path, viewport=size, color_scheme=scheme) as page:
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#contenders").get_by_role("button", name="Accuracy").click()
        first = page.locator("#contenders tbody tr").first
        assert "large.h5" in first.inner_text()


def test_a_finger_lists_what_it_touches(browser: Browser, written: Path, report: Report) -> None:
    image = alone(report)
    with opened(browser, written, viewport=NARROW, has_touch=True) as page:
        map_of(page)
        page.touchscreen.tap(*point_of(page, report, image))
        assert image in shown(page.locator("#map-panel"))
