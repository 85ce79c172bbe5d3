"""The page of ``tlpipe export-web`` in a real browser: it says what ``tlpipe classify`` says."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from playwright.sync_api import Browser, Page

import tlpipe
from browser import Seen, page_of, serious
from conftest import write_classes, write_image
from tlpipe.card import Card
from tlpipe.picture import Picture
from tlpipe.stages import site as site_stage
from tlpipe.stages.decode import decode
from tlpipe.stages.preprocess import preprocess, reduction
from tlpipe.types import DECODERS, EXACT_DECODER, FAST_DECODER, FileStat, Preprocess
from web_site import answers, ready, site_at

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

STATIC = Path(site_stage.__file__).parent / "static"
RUNTIME = "TLPIPE_ORT_WEB"
HOSTILE = "<img src=x onerror=alert(1)>"
"""A class, and a file."""


# -- pixels, without the runtime -------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """A page that can import the modules of the site, and does nothing else."""
    with (
        site_at(STATIC) as address,
        page_of(browser, address + "runtime/LICENSE.txt") as seen,
    ):
        yield seen.page


_PREPROCESS = """async ([text, facts, size, spec, decoder]) => {
    const { preprocess } = await import('/preprocess.mjs');
    const { pictureOf } = await import('/picture.mjs');
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]), {colorSpaceConversion: 'none'});
    const picture = await pictureOf(bitmap, new Blob([bytes]));
    return [...preprocess(picture, size, spec, decoder)];
}"""


def in_page(
    page: Page, content: bytes, size: tuple[int, int], spec: Preprocess, decoder: str
) -> np.ndarray:
    text = base64.b64encode(content).decode()
    found = page.evaluate(_PREPROCESS, [text, None, list(size), spec.to_dict(), decoder])
    return np.array(found, np.int64).reshape(*size, 3)


def spec_of(interpolation: Any, **changes: Any) -> Preprocess:
    plain: dict[str, Any] = {"resize": "exact", "size": 0, "crop": "none", "crop_fraction": 0.0}
    return Preprocess(
        colour="rgb", interpolation=interpolation, antialias=True, scale=1.0,
        mean=(0.0,) * 3, std=(1.0,) * 3, **(plain | changes),
    )  # fmt: skip


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def ours(content: bytes, size: tuple[int, int], spec: Preprocess, decoder: str) -> np.ndarray:
    def reduce(image_size: tuple[int, int]) -> int:
        return reduction(image_size, size, spec)

    picture = decode(content, FileStat(), reduce if decoder == FAST_DECODER else None)
    assert isinstance(picture, Picture)
    return preprocess(picture, size, spec, decoder).astype(np.int64)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "box", "nearest"])
def test_pixels_are_those_of_tlpipe(modules: Page, interpolation: str, decoder: str) -> None:
    rng = np.random.default_rng(5)
    crops: list[dict[str, Any]] = [
        {},
        {"crop": "centre-fraction", "crop_fraction": 0.875},
        {"crop": "centre", "resize": "shortest", "size": 37},
    ]
    for width, height in ((91, 40), (33, 150), (32, 32), (9, 7)):
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        content = encoded(Image.fromarray(noise), "PNG")
        for size in ((32, 32), (24, 31)):
            for crop in crops:
                spec = spec_of(interpolation, **crop)
                found = in_page(modules, content, size, spec, decoder)
                expected = ours(content, size, spec, decoder)
                lower = height * size[1] > width * size[0]  # it shrinks more down than across
                if lower and (decoder == EXACT_DECODER or interpolation == "box"):
                    # Pillow 13 may then go down first, which rounds in another way.
                    assert np.abs(found - expected).mean() < 1.5
                else:
                    assert np.array_equal(found, expected), (width, size, crop)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_picture_is_turned_upright(modules: Page, decoder: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (61, 90, 3), np.uint8))
    spec = spec_of("bicubic", crop="centre-fraction", crop_fraction=0.8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(image, "JPEG", exif=exif)
        found = in_page(modules, content, (40, 28), spec, decoder)
        assert np.array_equal(found, ours(content, (40, 28), spec, decoder)), orientation


def test_transparent_and_odd_pictures_are_read_as_tlpipe_reads_them(modules: Page) -> None:
    rng = np.random.default_rng(2)
    image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    clear = image.copy()
    clear.putalpha(Image.fromarray(rng.integers(0, 256, (50, 70), np.uint8)))
    palette = image.quantize(32)
    spec = spec_of("bilinear")
    for content in (
        encoded(clear, "PNG"),
        encoded(clear.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=3),
        encoded(image.convert("1"), "PNG"),
        encoded(clear, "WEBP", lossless=True, exact=True),
        encoded(image, "WEBP", quality=70),
        encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(180)]),
        encoded(image.convert("L"), "JPEG"),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "JPEG", progressive=True, subsampling=2),
    ):
        for decoder in DECODERS:
            found = in_page(modules, content, (16, 16), spec, decoder)
            difference = np.abs(found - ours(content, (16, 16), spec, decoder)).max()
            assert difference <= 1, content[:40]


def test_a_large_jpeg_is_made_smaller_as_its_decoder_does_it(modules: Page) -> None:
    rng = np.random.default_rng(3)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((331, 251))
    spec = spec_of("bicubic")
    exif = Image.Exif()
    exif[0x0112] = 6
    for size, times in (((60, 50), 2), ((30, 30), 4), ((14, 12), 8)):
        for options in ({}, {"exif": exif}):
            content = encoded(smooth, "JPEG", quality=95, subsampling=0, **options)
            assert reduction((251, 331), size, spec) == reduction((331, 251), size, spec) == times
            found = in_page(modules, content, size, spec, FAST_DECODER)
            # Squares of the last columns and rows lie across the edge; elsewhere it is rounding.
            inner = np.abs(found - ours(content, size, spec, FAST_DECODER))[1:-2, 1:-2]
            assert inner.max() <= 3
            assert inner.mean() < 0.6
            exact = in_page(modules, content, size, spec, EXACT_DECODER)
            assert np.array_equal(exact, ours(content, size, spec, EXACT_DECODER))


# -- the page --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The package onnxruntime-web; skips without it: a registry may be out of reach."""
    path = os.environ.get(RUNTIME)
    if path is None:
        pytest.skip(f"{RUNTIME} does not name the package: .ci/web-runtime PATH fetches it")
    return Path(path)


@dataclass(frozen=True)
class Made:
    """A classifier and its site."""

    classifier: Path
    site: Path


@pytest.fixture(scope="module")
def made(runtime: Path, tiny_card: Card, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One class has a name that is HTML."""
    folder = tmp_path_factory.mktemp("web")
    write_classes(folder / "photos", 15)
    (folder / "photos" / "red").rename(folder / "photos" / HOSTILE)
    classifier = folder / "classifier.onnx"
    tlpipe.train(folder / "photos", classifier, backbone=tiny_card)
    tlpipe.export_web(classifier, folder / "site", runtime=runtime)
    return Made(classifier, folder / "site")


@pytest.fixture
def opened(browser: Browser, made: Made) -> Iterator[Seen]:
    """The page, ready; whatever happens, it asks its own server alone and has no errors."""
    with site_at(made.site) as address, page_of(browser, address) as seen:
        ready(seen.page)
        yield seen
        assert seen.errors == []
        assert {url for url in seen.requests if not url.startswith(address)} == set()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Of the classes, a strange one, one that lies on its side, and one that is no picture."""
    folder = tmp_path / "in"
    write_classes(folder, 4, seed=300)
    write_image(folder / "strange.png", 9, (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "red" / "000.png") as image:
        image.save(folder / "side.jpg", exif=exif)
    (folder / "none.jpg").write_text("no picture")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def classified(classifier: Path, pictures: list[Path], work: Path, **more: Any) -> list[dict]:
    """Rows of ``classify``, in order."""
    listed = work / "listed.csv"
    listed.write_text("path\n" + "".join(f"{path}\n" for path in pictures), encoding="utf-8")
    source = tlpipe.source(listed, allow_outside="/")
    columns = tlpipe.Columns(**more)
    output = work / "predictions.csv"
    tlpipe.classify(classifier, source, output, columns=columns, overwrite=True)
    with output.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def same(rows: list[dict], said: list[dict], classes: int) -> None:
    for row, answer in zip(rows, said, strict=True):
        if row["status"] != "ok":
            assert answer["kind"] == "bad"
            continue
        expected = {row["class"]: float(row["probability"])}
        for k in range(2, classes + 1):
            expected[row[f"class_{k}"]] = float(row[f"probability_{k}"])
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-3)
        assert list(answer["probabilities"]) == list(expected)
        unknown = row.get("unknown") == "true"
        assert answer["kind"] == ("unknown" if unknown else "done")
        assert answer["headline"] == ("None of the classes" if unknown else row["class"])
        if "set" in row:
            names = ", ".join(row["set"].split("|"))
            assert answer["notes"][-1].endswith(f"t may be: {names}.")


def test_the_page_says_what_classify_says(
    opened: Seen, made: Made, pictures: list[Path], tmp_path: Path
) -> None:
    rows = classified(made.classifier, pictures, tmp_path, top_k=3, unknown=True, sets=True)
    assert {row["status"] for row in rows} == {"ok", "rejected"}
    assert {row["unknown"] for row in rows} > {"true", "false"}
    said = answers(opened.page, pictures)
    same(rows, said, 3)
    assert [answer["name"] for answer in said] == [path.name for path in pictures]


def test_so_does_that_of_an_int8_classifier(
    browser: Browser, runtime: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """The default backbone, since small ones have little to quantise."""
    write_classes(tmp_path / "photos", 12)
    classifier = tmp_path / "classifier.onnx"
    run = tlpipe.RunOptions(precision="int8", min_agreement=0)
    tlpipe.train(tmp_path / "photos", classifier, options=run)
    tlpipe.export_web(classifier, tmp_path / "site", runtime=runtime)
    rows = classified(classifier, pictures, tmp_path, top_k=3)
    with site_at(tmp_path / "site") as address, page_of(browser, address) as seen:
        said = answers(seen.page, pictures)
    for row, answer in zip(rows, said, strict=True):
        if row["status"] == "ok":
            assert answer["probabilities"][row["class"]] == pytest.approx(
                float(row["probability"]), abs=0.02
            )


def test_labels_are_shown_where_a_picture_may_have_several(
    browser: Browser, runtime: Path, tiny_card: Card, tmp_path: Path
) -> None:
    photos = write_classes(tmp_path / "photos", 12)
    files = sorted(photos.rglob("*.png"))
    lines = [
        f"{path},{path.parent.name}|{'odd' if i % 2 else 'even'}" for i, path in enumerate(files)
    ]
    listed = tmp_path / "m.csv"
    listed.write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    classifier = tmp_path / "classifier.onnx"
    head = tlpipe.TrainOptions(multi_label=True)
    source = tlpipe.source(listed, allow_outside="/")
    tlpipe.train(source, classifier, backbone=tiny_card, head=head)
    tlpipe.export_web(classifier, tmp_path / "site", runtime=runtime)
    chosen = files[::5]
    rows = classified(classifier, chosen, tmp_path)
    with site_at(tmp_path / "site") as address, page_of(browser, address) as seen:
        said = answers(seen.page, chosen)
        assert seen.errors == []
        assert serious(seen.page) == []
    for row, answer in zip(rows, said, strict=True):
        labels = [name for name in row["labels"].split("|") if name]
        assert answer["given"] == labels
        if answer["kind"] == "done":
            assert answer["headline"] == (", ".join(labels) or "No label")


def test_names_that_are_html_are_shown_as_text(opened: Seen, tmp_path: Path) -> None:
    path = write_image(tmp_path / f"{HOSTILE}.png", 3, (200, 40, 40))
    (answer,) = answers(opened.page, [path])
    assert answer["headline"] == HOSTILE
    assert answer["name"] == path.name
    assert opened.page.locator("img").count() == 0
    assert HOSTILE in str(opened.page.locator("#facts").text_content())


def test_a_picture_that_cannot_be_used_costs_one_row(opened: Seen, tmp_path: Path) -> None:
    good = write_image(tmp_path / "good.png", 3, (200, 40, 40))
    jpeg = encoded(Image.open(good), "JPEG")
    flat = encoded(Image.new("1", (40_000, 2)), "PNG")
    bomb = encoded(Image.new("1", (20_000, 6_000)), "PNG")
    payloads = [
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
        for name, content in (
            ("empty.jpg", b""),
            ("cut.jpg", jpeg[: len(jpeg) // 2]),
            ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
            ("flat.png", flat),
            ("bomb.png", bomb),
            ("good.png", good.read_bytes()),
        )
    ]
    said = answers(opened.page, payloads)
    assert [answer["kind"] for answer in said] == ["bad"] * 5 + ["done"]
    assert said[0]["notes"] == ["The file has no bytes."]
    assert said[1]["notes"] == ["This browser cannot read it as a picture."]
    assert "40000 x 2 pixels" in said[3]["notes"][0]
    assert "20000 x 6000 pixels" in said[4]["notes"][0]


def test_pictures_are_pasted_dropped_and_chosen_by_keyboard(opened: Seen, tmp_path: Path) -> None:
    page = opened.page
    page.bring_to_front()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    # That a click opens the system's dialogue is the browser's part, and takes its time at times.
    page.evaluate("files.addEventListener('click', () => files.dataset.clicked = 'yes')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#files[data-clicked]", state="attached")
    page.set_input_files("#files", write_image(tmp_path / "chosen.png", 1, (200, 40, 40)))
    page.wait_for_selector("#rows > li.done")
    content = base64.b64encode(write_image(tmp_path / "a.png", 2, (40, 180, 60)).read_bytes())
    give = """([text, kind, name]) => {
        const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name, {type: 'image/png'}));
        document.body.dispatchEvent(kind === 'paste'
            ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
            : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    for count, kind in ((2, "paste"), (3, "drop")):
        page.evaluate(give, [content.decode(), kind, f"{kind}.png"])
        page.wait_for_selector(f"#rows > li.done:nth-child({count})")
        assert page.locator("#rows > li").last.locator("h3").text_content() == "green"
        assert f"{kind}.png: green" in str(page.locator("#status").text_content())
    page.click("#clear")
    assert page.locator("#rows > li").count() == 0
    assert page.locator("#status").text_content() == "Ready."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_can_be_used_by_everyone(
    browser: Browser, made: Made, pictures: list[Path], scheme: Any, width: int
) -> None:
    view: Any = {"width": width, "height": 800}
    with (
        site_at(made.site) as address,
        page_of(browser, address, color_scheme=scheme, viewport=view) as seen,
    ):
        ready(seen.page)
        answers(seen.page, pictures)
        seen.page.click("#about summary")
        assert serious(seen.page) == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_can_be_sent_elsewhere(opened: Seen, browser: Browser, made: Made) -> None:
    """Neither by the page nor by its worker."""
    ask = "url => fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    with site_at(made.site) as elsewhere:
        assert opened.page.workers[0].evaluate(ask, elsewhere) == "refused"
        assert opened.page.evaluate(ask, elsewhere) == "refused"
        assert opened.page.evaluate(ask, opened.page.url) == "sent"
    assert all("Content Security Policy" in text for text in opened.errors)
    assert opened.errors
    opened.errors.clear()
    opened.requests[:] = [url for url in opened.requests if url.startswith(opened.page.url)]


def test_threads_are_used_where_the_server_allows_them(
    browser: Browser, made: Made, pictures: list[Path], tmp_path: Path
) -> None:
    isolating = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    rows = classified(made.classifier, pictures, tmp_path, top_k=3, unknown=True)
    with site_at(made.site, isolating) as address, page_of(browser, address) as seen:
        assert seen.page.evaluate("self.crossOriginIsolated")
        same(rows, answers(seen.page, pictures), 3)
        assert seen.errors == []


# -- what is wrong with a site ---------------------------------------------------------------------


def _no_runtime(site: Path) -> None:
    next((site / "runtime").glob("*.wasm")).unlink()


def _no_classifier(site: Path) -> None:
    (site / "classifier.onnx").unlink()


def _another_classifier(site: Path) -> None:
    with (site / "classifier.onnx").open("ab") as stream:
        stream.write(b"more")


def _replaced(site: Path, content: bytes) -> None:
    (site / "classifier.onnx").write_bytes(content)
    about = json.loads((site / "classifier.json").read_bytes())
    about["model_bytes"] = len(content)
    (site / "classifier.json").write_text(json.dumps(about))


def _damaged(site: Path) -> None:
    _replaced(site, b"no network at all")


def _unsupported(site: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Marvel", ["image"], ["probabilities"], domain="com.example")],
        "odd",
        [value("image", TensorProto.UINT8, ["N", 16, 16, 3])],
        [value("probabilities", TensorProto.FLOAT, ["N", 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    _replaced(site, onnx.ModelProto.SerializeToString(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_runtime, "This browser cannot open the classifier"),
        (_no_classifier, "classifier.onnx could not be fetched: the server says 404."),
        (_another_classifier, "is not the file of this page"),
        (_damaged, "This browser cannot open the classifier"),
        (_unsupported, "This browser cannot open the classifier"),
    ],
)
def test_a_site_that_cannot_work_says_why(
    browser: Browser, made: Made, tmp_path: Path, change: Any, message: str
) -> None:
    site = shutil.copytree(made.site, tmp_path / "site")
    change(site)
    with site_at(site) as address, page_of(browser, address) as seen:
        seen.page.wait_for_selector("body.failed")
        assert message in str(seen.page.locator("#status").text_content())
        assert seen.page.locator("#files").is_disabled()


def test_a_page_opened_from_a_disk_says_what_it_needs(browser: Browser, made: Made) -> None:
    with page_of(browser, made.site / "index.html") as seen:
        assert "needs a web server" in str(seen.page.locator("#status").text_content())
