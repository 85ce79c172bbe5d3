"""The pages as text: what stands in them, what is escaped, how large they are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from report_content import CLASSES, HOSTILE, comparison_of, no_images, report_of, unlabelled_report
from tlpipe.stages.page import (
    Bin,
    CurvePoint,
    Figure,
    Matrix,
    Mistakes,
    Pairs,
    Reliability,
    Report,
    Suspects,
    comparison_page,
    report_page,
)
from tlpipe.stages.page.charts import cost_chart, interval_bar, learning_chart, reliability_chart
from tlpipe.stages.page.scales import Scale, log_ticks, nice_range, tick_label, ticks
from tlpipe.stages.page.views import company, highlighted, shade_of
from tlpipe.stages.page.words import share, when

VOID = set("area base br col embed hr img input link meta source track wbr".split())
ASKING = ("src", "href", "action", "srcset", "data", "poster")
"""Attributes whose address a browser fetches or follows."""


class Parsed(HTMLParser):
    """A page's elements; fails where one is not closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text.append(data)

    @property
    def ids(self) -> list[str]:
        return [str(found["id"]) for _, found in self.elements if "id" in found]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def sections(page: str) -> list[str]:
    return [str(section["id"]) for section in Parsed(page).named("section")]


@pytest.fixture(scope="module")
def full() -> str:
    return report_page(report_of())


def test_a_page_has_every_part_in_order(full: str) -> None:
    assert (
        sections(full)
        == (
            "figures notices confusion classes reliability learning map mistakes label-errors"
            " near-duplicates leaks find provenance rejects"
        ).split()
    )
    parsed = Parsed(full)
    links = [str(link["href"]) for link in parsed.named("a")]
    assert links == ["#content"] + [f"#{name}" for name in sections(full)]
    for said in (
        "Of 100 new images, 81 to 90 are told rightly.",
        "Judged on the images of the test split.",
        "29 November 2026, 10:00 UTC",
        "0.810 to 0.900",
        "The first 4 of 214.",
        "cosine 0.9980",
        "the same content",
        "The page holds a sample.",
        "More images would probably help.",
    ):
        assert said in parsed.words


def test_ids_are_unique_and_labels_lead_somewhere(full: str) -> None:
    parsed = Parsed(full)
    assert len(set(parsed.ids)) == len(parsed.ids)
    for _, attributes in parsed.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            if attributes.get(name):
                assert attributes[name] in parsed.ids


@pytest.mark.parametrize("page", [report_page(report_of()), comparison_page(comparison_of())])
def test_a_page_asks_for_nothing(page: str) -> None:
    for _, attributes in Parsed(page).elements:
        for name in ASKING:
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes  # the policy forbids them
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", page)


@pytest.mark.parametrize("page", [report_page(report_of()), comparison_page(comparison_of())])
def test_the_policy_names_the_scripts_and_the_style(page: str) -> None:
    policy = next(m["content"] for m in Parsed(page).named("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    runs = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, re.DOTALL)
    assert len(runs) == 3
    for text in runs:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_parts_without_content_are_left_out() -> None:
    assert sections(report_page(unlabelled_report())) == (
        "map near-duplicates find provenance rejects".split()
    )
    assert "No image was left out." in report_page(unlabelled_report())


def test_empty_findings_are_said_in_a_sentence() -> None:
    page = report_page(
        replace(
            report_of(),
            mistakes=Mistakes(0, ""),
            suspects=Suspects(0, ""),
            near_duplicates=Pairs(0, ""),
        )
    )
    for said in ("is right about every image", "No label looks wrong", "No two images"):
        assert said in page


def test_names_are_text_whatever_they_hold() -> None:
    report = replace(report_of(60, HOSTILE, HOSTILE), title=HOSTILE[0], features=HOSTILE[1])
    page = report_page(report)
    parsed = Parsed(page)
    assert "<b>bold" not in page
    for _, attributes in parsed.elements:
        assert "onerror" not in attributes
    assert len(parsed.named("script")) == len(Parsed(report_page(report_of(60))).named("script"))
    assert HOSTILE[2] in "".join(parsed.text)
    data = json.loads(next(text for text in parsed.scripts if text.startswith('{"count"')))
    assert data["classes"] == HOSTILE
    assert data["keys"][: len(HOSTILE)] == HOSTILE


def test_a_name_that_utf8_cannot_hold_does_not_stop_the_page() -> None:
    report_page(report_of(20, names=["caf\udce9.png"])).encode("utf-8")


def test_ten_thousand_images_take_little_beside_their_pictures() -> None:
    report = report_of(10_000)
    pictures = sum(len(sheet.data) for sheet in report.images.sheets)
    pictures += sum(map(len, report.images.larger.values()))
    size = len(report_page(report).encode("utf-8"))
    assert size - pictures * 4 / 3 < 1.5e6


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_images(count: int) -> None:
    few = report_of(4)
    page = report_page(
        replace(
            unlabelled_report(),
            images=no_images() if count == 0 else report_of(1).images,
            projections=[replace(few.projections[0], points=few.projections[0].points[:count])],
            near_duplicates=None,
            classes=few.classes,
            count=count,
        )
    )
    assert ("map" in sections(page)) == (count == 1)
    Parsed(page)


@pytest.mark.parametrize("count", [1, 1000])
def test_one_class_and_a_thousand(count: int) -> None:
    report = report_of(2000, [f"class {k}" for k in range(count)])
    if count == 1000:
        confused = report.matrix.confused[:50] if report.matrix else []
        report = replace(report, matrix=Matrix(None, confused))
    page = report_page(report)
    Parsed(page)
    assert len(re.findall(r'<th scope="row" data-value=', page)) == count
    assert ('class="matrix' in page) == (count == 1)
    assert len(highlighted(report)) <= 10


def test_labels_of_several_classes_are_joined() -> None:
    report = report_of(12)
    images = replace(report.images, labels=[(0, 2)] * 12, guesses=[(0,)] * 6 + [(0, 2)] * 6)
    rows = [replace(row, average_precision=0.75, threshold=0.4) for row in report.rows]
    page = report_page(
        replace(
            report,
            multilabel=True,
            matrix=None,
            images=images,
            rows=rows,
            mistakes=Mistakes(2, "", [0, 8]),
        )
    )
    assert "confusion" not in sections(page)
    assert "apple, cherry" in page
    assert "Average precision" in page


def test_a_matrix_without_a_mistake_is_still_shown() -> None:
    matrix = Matrix([[3, 0, 0], [0, 3, 0], [0, 0, 0]], [])
    page = report_page(replace(report_of(), matrix=matrix))
    assert 'class="matrix' in page
    assert "Confused most often" not in page


def points_of(chart: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(chart).iter() if kind in e.get("class", "").split()]


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.parametrize(
    "chart",
    [
        reliability_chart(report_of().reliability),
        learning_chart(report_of().learning),
        learning_chart([CurvePoint(50, 1.0, 1.0, 1.0)]),
        cost_chart(comparison_of()),
        cost_chart(comparison_of([f"features-{k}.h5" for k in range(9)])),
        cost_chart(comparison_of(["one.h5"])),
    ],
)
def test_what_is_drawn_lies_within_the_picture(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for element in root:
        for name, most in (
            ("x", width),
            ("x1", width),
            ("x2", width),
            ("cx", width),
            ("y", height),
            ("y1", height),
            ("y2", height),
            ("cy", height),
        ):
            if name in element.attrib:
                assert -1e-6 <= float(element.attrib[name]) <= most, (element.tag, element.attrib)
        numbers = [float(n) for n in NUMBER.findall(element.get("points", ""))]
        assert all(0 <= x <= width for x in numbers[::2])
        assert all(0 <= y <= height for y in numbers[1::2])


def test_a_chart_has_each_point_and_its_interval() -> None:
    chart = reliability_chart(report_of().reliability)
    for number in (0, 1):
        marks = [e for e in points_of(chart, f"curve-{number}") if "point" in e.get("class", "")]
        assert len(marks) == 5 + 1  # and one in the legend
    assert len(points_of(chart, "spread")) == 10
    assert len(points_of(chart, "bar")) == 5
    assert len(points_of(learning_chart(report_of().learning), "point")) == 5
    names = [e.text for e in points_of(cost_chart(comparison_of()), "name")]
    assert names == ["small.h5", "medium.h5", "large.h5"]


def test_a_diagram_of_the_sure_begins_near_where_they_lie() -> None:
    sure = Reliability("after calibration", [Bin(20, 0.95, 0.97, 0.85, 0.99)], 0.01)
    labels = [e.text for e in points_of(reliability_chart([sure]), "tick")]
    assert labels[0] == "0.8"
    unsure = replace(sure, bins=[*sure.bins, Bin(20, 0.2, 0.3, 0.1, 0.5)])
    assert points_of(reliability_chart([unsure]), "tick")[0].text == "0"
    assert reliability_chart([replace(sure, bins=[])])  # nobody was judged


def test_curves_differ_by_more_than_colour() -> None:
    chart = reliability_chart(report_of().reliability)
    shapes = {
        number: {
            e.tag for e in points_of(chart, f"curve-{number}") if "point" in e.get("class", "")
        }
        for number in (0, 1)
    }
    assert shapes == {0: {"circle"}, 1: {"rect"}}


def test_a_name_in_a_chart_is_text() -> None:
    assert "<script" not in cost_chart(comparison_of(HOSTILE[:3]))


def test_an_interval_bar_holds_what_is_more_than_one() -> None:
    bar = ElementTree.fromstring(interval_bar(Figure("log loss", 1.7, 1.5, 2.1, "")))
    box = next(e for e in bar if e.get("class") == "range")
    assert 0 < float(box.attrib["x"]) < 100
    assert float(box.attrib["x"]) + float(box.attrib["width"]) <= 100
    assert "range" not in interval_bar(Figure("macro-F1", 0.84, None, None, ""))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.83, 0.91), (-3, 12), (0, 1e-4), (0, 87_654), (0.999, 1)]
)
def test_ticks_cover_a_range_in_nice_steps(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert found[0] - low < steps[0] * 1.001
    assert high - found[-1] < steps[0] * 1.001


def test_ticks_of_ratios() -> None:
    assert log_ticks(10, 1000) == [10, 20, 50, 100, 200, 500, 1000]
    assert log_ticks(1, 1e8) == [10.0**k for k in range(9)]
    assert len(log_ticks(510, 900)) > 1
    assert [tick_label(t) for t in (0.0, 0.25, 1000.0, 2.5)] == ["0", "0.25", "1,000", "2.5"]


def test_scales() -> None:
    assert Scale(0, 10, 100, 0)(2.5) == 75
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)
    low, high = nice_range([0.861, 0.913], least=0.05, floor=0, ceiling=1)
    assert low <= 0.861
    assert 0.913 <= high <= 1
    assert nice_range([1.0], least=0.05, ceiling=1)[1] == 1


def test_shades_rise_with_shares() -> None:
    shades = [shade_of(part) for part in (0, 0.001, 0.05, 0.25, 0.7, 1)]
    assert shades == sorted(shades)
    assert (shades[0], shades[1], shades[-1]) == (0, 1, 8)


def test_shares_are_never_rounded_to_all() -> None:
    assert [share(x).replace("\u00a0", " ") for x in (0.5, 0.9996, 1.0, 0.004, 0.994)] == [
        "50 %",
        ">99.9 %",
        "100 %",
        "0.4 %",
        "99.4 %",
    ]


def test_moments_are_written_as_people_do() -> None:
    assert when("2026-03-01T23:05:00+02:00") == "1 March 2026, 21:05 UTC"
    assert when("yesterday") == "yesterday"


def test_the_map_in_words_counts_the_nearest() -> None:
    report = report_of(30)
    rows = company(report.images, CLASSES)
    assert [row.count for row in rows] == [10, 10, 10]
    nearest = report.images.neighbours[:, 0]
    same = np.mean([nearest[k] % 3 == 0 for k in range(0, 30, 3)])
    assert rows[0].same == pytest.approx(same)


def test_a_comparison_has_every_part() -> None:
    page = comparison_page(comparison_of())
    assert sections(page) == (
        "recommendation notices cost contenders differences classes provenance".split()
    )
    for said in ("cannot be told from it", "4\u00a0ms", "16.0\u00a0MB", "2.0\u00a0kB", "1,024"):
        assert said in page


def test_a_comparison_without_times_is_drawn_against_the_length() -> None:
    comparison = comparison_of()
    comparison = replace(
        comparison,
        contenders=[
            replace(c, inference_s=None, network_bytes=None, device=None)
            for c in comparison.contenders
        ],
    )
    assert "numbers in an embedding" in comparison_page(comparison)


def test_a_comparison_escapes_names() -> None:
    page = comparison_page(comparison_of(HOSTILE[:3]))
    assert len(Parsed(page).named("script")) == 2
    assert "<b>bold" not in page


def test_what_a_report_names_and_does_not_hold_is_an_error() -> None:
    broken: Report = replace(report_of(20), mistakes=Mistakes(1, "", [999]))
    with pytest.raises(IndexError):
        report_page(broken)
