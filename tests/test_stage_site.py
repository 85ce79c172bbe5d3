"""Folders of ``tlpipe export-web``: what goes into them, what they replace, what they refuse."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tlpipe
from conftest import Trained
from tlpipe.cli.main import cli
from tlpipe.errors import ClassifierError, DownloadError, OptionError, OutputError
from tlpipe.stages.site import PUBLISHED, read_runtime
from tlpipe.stages.site import runtime as runtime_module
from tlpipe.workflows import export_web as workflow
from web_server import serving

ROOT = Path(__file__).parents[1]
MODULE, WASM = runtime_module.MODULE, runtime_module.WASM
ABOUT = json.dumps({"name": "onnxruntime-web", "version": "9.9.9"}).encode()
PACKAGE = {
    "package/package.json": ABOUT,
    f"package/dist/{MODULE}": b"export {}",
    f"package/dist/{WASM}": b"\0asm",
    "package/dist/other.js": b"not needed",
    f"../../dist/{WASM}.evil": b"outside",
}


def archive(path: Path, entries: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def unpacked(path: Path, entries: dict[str, bytes]) -> Path:
    for name, content in entries.items():
        if not name.startswith(".."):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return archive(tmp_path / "ort.tgz", PACKAGE)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


EXPECTED = sorted(
    [
        *("answer.mjs", "classifier.json", "classifier.onnx", "icon.svg", "index.html"),
        *("jpeg.mjs", "resample.mjs"),
        *("page.css", "page.mjs", "picture.mjs", "preprocess.mjs", "worker.mjs"),
        *("runtime/LICENSE.txt", f"runtime/{MODULE}", f"runtime/{WASM}"),
    ]
)


# -- the runtime -----------------------------------------------------------------------------------


def test_a_runtime_is_an_archive_or_what_is_in_it(package: Path, tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "unpacked", PACKAGE)
    for path in (package, folder, folder / "package"):
        found = read_runtime(path)
        assert found.version == "9.9.9"
        assert dict(found.files) == {MODULE: b"export {}", WASM: b"\0asm"}


def test_what_is_no_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*gone: str, **more: bytes) -> dict[str, bytes]:
        kept = {name: content for name, content in PACKAGE.items() if name not in gone}
        return kept | {name.replace("__", "/"): content for name, content in more.items()}

    wasm = f"package/dist/{WASM}"
    wrong: list[tuple[Path, str]] = [
        (tmp_path / "none.tgz", "does not exist"),
        (archive(tmp_path / "a.tgz", without(wasm)), "it lacks"),
        (archive(tmp_path / "b.tgz", without(wasm), {wasm: "/etc/passwd"}), "it lacks"),
        (unpacked(tmp_path / "c", without(wasm)), "it lacks"),
    ]
    for number, about in enumerate(
        (b'{"name": "left-pad", "version": "1"}', b"[]", b"{", b"[" * 99999)
    ):
        entries = PACKAGE | {"package/package.json": about}
        message = "is the package 'left-pad'" if number == 0 else "is no package of npm"
        wrong.append((archive(tmp_path / f"d{number}.tgz", entries), message))
    text = tmp_path / "text.tgz"
    text.write_text("no archive")
    cut = tmp_path / "cut.tgz"
    cut.write_bytes((tmp_path / "d0.tgz").read_bytes()[:-40])
    large = PACKAGE | {"package/package.json": b" " * ((1 << 20) + 1)}
    wrong += [
        (text, "cannot be read as an archive"),
        (cut, "cannot be read as an archive"),
        (archive(tmp_path / "e.tgz", large), "more than 1,048,576 bytes"),
    ]
    for path, message in wrong:
        with pytest.raises(OptionError, match=message) as caught:
            read_runtime(path)
        assert PUBLISHED.url in caught.value.hint
    monkeypatch.setattr(runtime_module, "_MOST", 2000)
    with pytest.raises(OptionError, match="unpacks to more than"):
        read_runtime(archive(tmp_path / "f.tgz", PACKAGE))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_runtime_is_downloaded_once_and_checked(
    trained: Trained, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = package.read_bytes()
    monkeypatch.setenv("TLPIPE_CACHE", str(tmp_path / "cache"))
    with serving(content) as server:
        right = hashlib.sha256(content).hexdigest()
        pin = replace(PUBLISHED, url=server.url, size_bytes=len(content), sha256=right)
        monkeypatch.setattr(workflow, "PUBLISHED", pin)
        for name in ("one", "two"):
            made = tlpipe.export_web(trained.classifier, tmp_path / name)
            assert made.runtime_version == "9.9.9"
        assert len(server.log) == 1
        monkeypatch.setattr(workflow, "PUBLISHED", replace(pin, sha256="0" * 64))
        with pytest.raises(DownloadError, match="SHA-256") as caught:
            tlpipe.export_web(trained.classifier, tmp_path / "three")
    assert "--runtime PATH" in caught.value.hint
    assert not (tmp_path / "three").exists()


def test_what_ci_fetches_is_what_is_pinned() -> None:
    script = (ROOT / ".ci" / "web-runtime").read_text(encoding="utf-8")
    assert PUBLISHED.url in script
    assert PUBLISHED.sha256 in script


# -- the folder ------------------------------------------------------------------------------------


def test_a_site_holds_the_classifier_as_it_is(
    trained: Trained, package: Path, tmp_path: Path
) -> None:
    made = tlpipe.export_web(trained.classifier, tmp_path / "site", runtime=package)
    assert names(made.path) == EXPECTED
    assert made.files == len(EXPECTED)
    assert made.size_bytes == sum((made.path / name).stat().st_size for name in EXPECTED)
    assert (made.path / "classifier.onnx").read_bytes() == trained.classifier.read_bytes()
    about = json.loads((made.path / "classifier.json").read_bytes())
    assert about["classes"] == ["blue", "green", "red"]
    assert about["model_bytes"] == trained.classifier.stat().st_size
    assert about["outputs"] == made.outputs
    assert {"probabilities", "unknown", "unknown_score", "prediction_set"} == set(made.outputs)
    assert "Copyright (c) Microsoft" in (made.path / "runtime" / "LICENSE.txt").read_text()
    for name in EXPECTED:  # no file asks for anything from elsewhere
        if name.endswith((".html", ".mjs", ".css")) and not name.startswith("runtime/"):
            text = (made.path / name).read_text(encoding="utf-8")
            assert not re.findall(r"https?://", text), name


def test_a_site_is_replaced_only_where_that_is_asked_for(
    trained: Trained, package: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()  # an empty one is in nobody's way
    tlpipe.export_web(trained.classifier, site, runtime=package)
    with pytest.raises(OutputError, match="exists already"):
        tlpipe.export_web(trained.classifier, site, runtime=package)
    (site / "page.css").write_text("changed")
    tlpipe.export_web(trained.classifier, site, runtime=package, overwrite=True)
    assert (site / "page.css").read_text() != "changed"
    assert names(site) == EXPECTED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ort.tgz", "site"]


def _photo(site: Path) -> None:
    (site / "photo.jpg").write_text("mine")


def _deep(site: Path) -> None:
    (site / "runtime" / "more").mkdir()


def _unmarked(site: Path) -> None:
    (site / "classifier.json").write_text('{"format": "other"}')


def _link(site: Path) -> None:
    (site / "extra").symlink_to("/")


@pytest.mark.parametrize("change", [_photo, _deep, _unmarked, _link])
def test_a_folder_with_anything_else_in_it_is_never_replaced(
    change: Any, trained: Trained, package: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    tlpipe.export_web(trained.classifier, site, runtime=package)
    change(site)
    before = sorted(site.rglob("*"))
    with pytest.raises(OutputError, match="holds something else than a site"):
        tlpipe.export_web(trained.classifier, site, runtime=package, overwrite=True)
    assert sorted(site.rglob("*")) == before


def test_the_folder_of_the_classifier_is_never_replaced(
    trained: Trained, package: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    tlpipe.export_web(trained.classifier, site, runtime=package)
    for output in (site, tmp_path / "site" / "runtime" / ".."):
        with pytest.raises(OutputError, match="the classifier lies in"):
            tlpipe.export_web(site / "classifier.onnx", output, runtime=package, overwrite=True)
    assert names(site) == EXPECTED


def test_places_that_cannot_be_written_are_refused(
    trained: Trained, package: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for output, message in (
        (tmp_path / "file", "is no folder"),
        (tmp_path / "no" / "site", "does not exist"),
    ):
        with pytest.raises(OutputError, match=message):
            tlpipe.export_web(trained.classifier, output, runtime=package, overwrite=True)


def test_a_failure_leaves_the_earlier_site(
    trained: Trained, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    tlpipe.export_web(trained.classifier, site, runtime=package)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        tlpipe.export_web(trained.classifier, site, runtime=package, overwrite=True)
    monkeypatch.undo()
    really = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return really(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="Input/output error"):
        tlpipe.export_web(trained.classifier, site, runtime=package, overwrite=True)
    assert names(site) == EXPECTED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ort.tgz", "site"]


def test_a_classifier_that_no_browser_can_hold_is_refused(
    trained: Trained, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MOST_BYTES", 1000)
    with pytest.raises(ClassifierError, match="a browser can run"):
        tlpipe.export_web(trained.classifier, tmp_path / "site", runtime=package)
    with pytest.raises(ClassifierError, match="does not exist"):
        tlpipe.export_web(tmp_path / "none.onnx", tmp_path / "site", runtime=package)
    assert not (tmp_path / "site").exists()


def test_the_command_says_how_to_serve_it(trained: Trained, package: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    line = ["export-web", str(trained.classifier), "-o", str(site)]
    result = CliRunner().invoke(cli, [*line, "--runtime", str(package)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert f"Wrote '{site}': {len(EXPECTED)} files" in result.stderr
    assert f"python -m http.server -d '{site}'" in result.stderr
    again = CliRunner().invoke(cli, line, env={"TLPIPE_ORT_WEB": str(package)})
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def test_exporting_a_site_needs_neither_onnx_nor_scikit_learn(
    trained: Trained, package: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, tlpipe\n"
        "tlpipe.export_web(sys.argv[1], sys.argv[2], runtime=sys.argv[3])\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'onnx', 'sklearn', 'h5py'}))"
    )
    words = [trained.classifier, tmp_path / "site", package]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
