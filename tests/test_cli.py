"""The command line: exact words and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

import tlpipe
from conftest import Trained, write_classes, write_image
from tlpipe.cli.main import cli
from tlpipe.cli.show import shown
from tlpipe.cli.signals import raise_again
from tlpipe.files import CACHE_VARIABLE
from tlpipe.stages import digits


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def commands(group: click.Group, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*name, key))
        else:
            yield (*name, key)


@pytest.mark.parametrize("name", list(commands(cli)), ids=" ".join)
def test_every_command_has_help_with_an_example(name: tuple[str, ...]) -> None:
    result = run(*name, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    tlpipe {' '.join(name)}" in result.output


def test_the_group_lists_every_command_by_section() -> None:
    output = run("--help").output
    for name in cli.commands:
        assert f"\n  {name} " in output
    assert "From images to a classifier:" in output


def test_the_version() -> None:
    assert run("--version").output == f"tlpipe {tlpipe.__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "tlpipe", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"tlpipe {tlpipe.__version__}\n"


@pytest.fixture
def road(tmp_path: Path, tiny_card_path: Path) -> Path:
    """A folder with photos, one of them broken, and what is no photo."""
    write_classes(tmp_path / "photos", 8)
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"")
    (tmp_path / "photos" / "notes.txt").touch()
    return tmp_path


def test_the_whole_road(road: Path, tiny_card_path: Path) -> None:
    photos, features, classifier = road / "photos", road / "f.h5", road / "c.onnx"
    result = run("embed", photos, "-o", features, "--backbone", tiny_card_path)
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert lines[:3] == [
        "Found 25 images in a folder per class.",
        "Classes (3): blue 8, green 8, red 9.",
        "Skipped: 1 not an image (.txt).",
    ]
    start = f"Wrote {str(features)!r}: 24 embeddings of 8 numbers: 24 embedded at "
    assert lines[3].startswith(start)
    assert lines[3].endswith(" images/s on CPUExecutionProvider.")
    assert lines[4] == f"Rejected 1: 1 empty. List them: tlpipe inspect {features} --rejects"
    assert result.stdout == ""

    result = run("inspect", features, "--rejects", "--json")
    assert json.loads(result.stdout) == [
        {
            "key": "red/broken.png",
            "stage": "decode",
            "reason": "empty",
            "detail": "The file has no bytes.",
        }
    ]

    result = run("train-head", features, "-o", classifier)
    assert result.exit_code == 0, result.stderr
    (accuracy,) = [x.split() for x in result.stdout.splitlines() if x.startswith(" accuracy")]
    assert accuracy == ["accuracy", "1.0000", "0.4385", "to", "1.0000"]  # Wilson's, of 3 images
    (matrix,) = [x.split() for x in result.stdout.splitlines() if x.startswith(" true ")]
    assert matrix == ["true", "\\", "predicted", "blue", "green", "red"]
    assert f"Wrote {str(classifier)!r}, whose probabilities agree" in result.stderr

    result = run("verify", classifier)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "Frozen: the backbone is the pretrained one."

    result = run("classify", classifier, photos, "-o", road / "p.csv", "--top-k", 2)
    assert result.exit_code == 0, result.stderr
    assert "Predicted: blue 8, green 8, red 8." in result.stderr
    assert len((road / "p.csv").read_text().splitlines()) == 26

    result = run("evaluate", classifier, photos, "-o", road / "e.json")
    assert result.exit_code == 0, result.stderr
    assert json.loads((road / "e.json").read_text())["metrics"]["count"] == 24
    (accuracy,) = [x.split() for x in result.stdout.splitlines() if x.startswith(" accuracy")]
    assert accuracy == ["accuracy", "1.0000", "0.8620", "to", "1.0000"]

    for path in (features, classifier, road / "p.csv", road / "e.json"):
        assert run("inspect", path).exit_code == 0
        assert "kind" in json.loads(run("inspect", path, "--json").stdout)


def test_train_in_one(road: Path, tiny_card_path: Path) -> None:
    result = run("train", road / "photos", "-o", road / "c.onnx", "--backbone", tiny_card_path)
    assert result.exit_code == 0, result.stderr
    assert (road / "c.features.h5").exists()
    again = run("train", road / "photos", "-o", road / "c.onnx", "--backbone", tiny_card_path)
    assert again.exit_code == 1
    assert again.stderr == (
        f"Error: The output {str(road / 'c.onnx')!r} exists already.\n"
        "Hint: Choose another --output, or replace it with --overwrite.\n"
    )


def test_paths_lead_outside_the_source_only_where_it_is_allowed(
    trained: Trained, road: Path, tiny_card_path: Path
) -> None:
    shelf = write_classes(road / "shelf", 6)
    source = road / "given" / "album.csv"
    source.parent.mkdir()
    rows = [f"{path},{path.parent.name}\n" for path in sorted(shelf.rglob("*.png"))]
    source.write_text("path,label\n" + "".join(rows))
    backbone = ("--backbone", tiny_card_path)
    for command in [
        ("classify", trained.classifier, source, "-o", road / "p.csv"),
        ("evaluate", trained.classifier, source),
        ("embed", source, "-o", road / "f.h5", *backbone),
        ("train", source, "-o", road / "c.onnx", *backbone),
        ("models", "check", tiny_card_path, source),
    ]:
        refused = run(*command, "--allow-outside", source.parent)
        assert refused.exit_code == 1
        assert "line 2, names '" in refused.stderr
        assert "--allow-outside FOLDER" in refused.stderr
        result = run(*command, "--allow-outside", source.parent, "--allow-outside", shelf)
        assert result.exit_code == 0, result.stderr
    unknown = run("embed", source, "-o", road / "g.h5", "--allow-outside", road / "none")
    assert unknown.exit_code == 1
    assert "which links and paths may lead into, does not exist" in unknown.stderr


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_that_leads_outside_is_said(trained: Trained, road: Path) -> None:
    write_image(road / "shelf" / "one.png", 5)
    source = write_classes(road / "album", 1)
    (source / "red" / "one.png").symlink_to(road / "shelf" / "one.png")
    result = run("classify", trained.classifier, source, "-o", road / "p.csv")
    assert "Skipped: 1 link that leads outside the source." in result.stderr
    assert "The link 'red/one.png' leads outside the source and is left out" in result.stderr
    allowed = ("--allow-outside", road / "shelf", "--overwrite")
    result = run("classify", trained.classifier, source, "-o", road / "p.csv", *allowed)
    assert result.stderr.startswith("Found 4 images in a folder per class.")


@pytest.mark.parametrize(("limit", "code"), [("0", 3), ("1", 0), ("1%", 3), ("50%", 0)])
def test_more_rejects_than_allowed(road: Path, tiny_card_path: Path, limit: str, code: int) -> None:
    result = run(
        *("embed", road / "photos", "-o", road / "f.h5"),
        *("--backbone", tiny_card_path, "--max-rejects", limit),
    )
    assert result.exit_code == code
    assert (road / "f.h5").exists()
    said = "These are more rejects than --max-rejects allows." in result.stderr
    assert said is (code == 3)


def test_a_class_that_is_lost_is_said(road: Path, tiny_card_path: Path) -> None:
    (road / "photos" / "zebra").mkdir()
    (road / "photos" / "zebra" / "z.png").write_text("no")
    result = run("embed", road / "photos", "-o", road / "f.h5", "--backbone", tiny_card_path)
    assert "No image of these classes could be read: zebra." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["embed", "nowhere", "-o", "f.h5"], 1, "The source 'nowhere' does not exist."),
        (["embed", "photos"], 2, "Missing option '-o' / '--output'."),
        (["embed", "photos", "-o", "f.jpg"], 1, "'f.jpg' must end in .h5 or .hdf5."),
        (["embed", "photos", "-o", "no/f.h5"], 1, "The folder 'no' of the output 'f.h5' does not"),
        (["embed", "photos", "-o", "f.h5", "--backbone", "resnet"], 1, "no backbone 'resnet'"),
        (["embed", "photos", "-o", "f.h5", "--batch-size", "0"], 2, "0 is not in the range x>=1"),
        (["embed", "photos", "-o", "f.h5", "--device", "tpu"], 2, "'tpu' is not one of"),
        (["embed", "photos", "-o", "f.h5", "--max-rejects", "x"], 2, "'x' is neither a number"),
        (["embed", "photos", "-o", "f.h5", "--overwrit"], 2, "No such option"),
        (["train", "photos/red", "-o", "c.onnx"], 1, "has no labels; a classifier needs two"),
        (["train-head", "photos", "-o", "c.onnx"], 1, "The feature file 'photos' is a folder"),
        (["classify", "c.onnx", "photos", "-o", "p.csv"], 1, "'c.onnx' does not exist."),
        (
            ["classify", "c.onnx", "photos", "-o", "p.xlsx"],
            1,
            "must end in .csv, .jsonl or .parquet.",
        ),
        (["verify", "photos/notes.txt"], 1, "is no ONNX model: it is empty."),
        (["inspect", "photos/notes.txt"], 1, "is no file that tlpipe knows"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_mistakes_are_answered_in_words(
    road: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(road)
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_output_never_replaces_an_input(trained: Trained, road: Path) -> None:
    features = shutil.copy(trained.features, road / "f.onnx")
    before = features.read_bytes()
    result = run("train-head", features, "-o", features, "--overwrite")
    assert result.exit_code == 1
    assert "is a file that this command reads" in result.stderr
    assert features.read_bytes() == before
    manifest = road / "m.csv"
    manifest.write_text("path\nphotos/red/000.png\n")
    result = run("classify", trained.classifier, manifest, "-o", manifest, "--overwrite")
    assert "is a file that this command reads" in result.stderr
    assert manifest.read_text() == "path\nphotos/red/000.png\n"


def test_debug_shows_the_traceback(road: Path) -> None:
    result = CliRunner().invoke(cli, ["--debug", "inspect", str(road / "none")])
    assert isinstance(result.exception, tlpipe.TlpipeError)


def test_an_unusable_cache_is_said(
    road: Path, monkeypatch: pytest.MonkeyPatch, tiny_card_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(road / "photos" / "notes.txt"))
    result = run("embed", road / "photos", "-o", road / "f.h5", "--backbone", tiny_card_path)
    assert result.exit_code == 1
    assert "cannot be made: Not a directory." in result.stderr
    assert "TLPIPE_CACHE=FOLDER" in result.stderr


def test_names_cannot_steer_the_terminal() -> None:
    assert shown("a\x1b[2Jb\nü日") == "a\\x1b[2Jb\\nü日"


def test_rejects_alone_are_said(trained: Trained, road: Path) -> None:
    source = road / "photos" / "red" / "broken.png"
    result = run("classify", trained.classifier, source, "-o", road / "p.csv")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "Found 1 image in one file.",
        result.stderr.splitlines()[1],
        "Rejected 1: 1 empty. They are rows with status 'rejected'.",
        "Not one image could be read.",
    ]


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 300 of the scans; twice, and never over files of somebody else's."""
    whole = digits.load_digits()
    part = SimpleNamespace(images=whole.images[-300:], target=whole.target[-300:])
    monkeypatch.setattr(digits, "load_digits", lambda: part)
    monkeypatch.setattr(digits, "COUNT", 300)
    folder = tmp_path / "demo"
    first = run("demo", "-o", folder)
    assert first.exit_code == 0, first.stderr
    assert f"$ tlpipe embed {folder}/digits/labelled -o {folder}/features.h5\n" in first.stderr
    assert "Frozen: the backbone is the pretrained one." in first.stdout
    assert "... 100 rows in all" in first.stdout
    assert len(list((folder / "digits" / "new").iterdir())) == 100
    second = run("demo", "-o", folder)
    assert second.exit_code == 0, second.stderr
    assert f"-o {folder}/features.h5 --overwrite\n" in second.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "features.h5").write_text("precious")
    third = run("demo", "-o", tmp_path / "mine")
    assert (third.exit_code, "are not the demonstration's" in third.stderr) == (1, True)
    assert (tmp_path / "mine" / "features.h5").read_text() == "precious"


def test_models(road: Path, tiny_card_path: Path) -> None:
    assert "efficientnet-lite0.in1k" in run("models", "list").stdout
    card = json.loads(run("models", "show", "efficientnet-lite0").stdout)
    assert card["output"]["dim"] == 1280
    (road / "names.txt").write_text("a\nb\nc\nd\ne\n")
    result = run(
        *("models", "export", "--backbone", tiny_card_path),
        *("-o", road / "own.onnx", "--classes", road / "names.txt"),
    )
    assert result.exit_code == 0, result.stderr
    result = run("classify", road / "own.onnx", road / "photos", "-o", road / "p.csv")
    assert result.exit_code == 0, result.stderr
    result = run("models", "export", "-o", road / "x.onnx", "--classes", road / "none.txt")
    assert (result.exit_code, "cannot be read" in result.stderr) == (1, True)


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stopped_run_says_what_is_kept_and_the_next_takes_it_up(
    tmp_path: Path, tiny_card_path: Path, number: signal.Signals, code: int
) -> None:
    photos = tmp_path / "photos"
    first = write_image(photos / "c" / "0.png", 1)
    os.utime(first, ns=(10**18, 10**18))
    for index in range(1, 5000):
        os.link(first, photos / "c" / f"{index}.png")
    command = [sys.executable, "-m", "tlpipe", "embed", str(photos)]
    command += ["-o", str(tmp_path / "f.h5"), "--backbone", str(tiny_card_path)]
    process = subprocess.Popen([*command, "--batch-size", "1"], stderr=subprocess.PIPE, text=True)
    begun = tmp_path / ".f.h5.parts" / "file.tmp"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if begun.exists() and begun.stat().st_size > 100_000:  # some hundred rows
            break
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    errors = " ".join(errors.split())
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "f.h5").exists()
    kept = re.search(r"([0-9,]+) embeddings of this run are kept; the same command", errors)
    assert kept is not None, errors
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = " ".join((done.stdout + done.stderr).split())
    assert f"{kept[1]} taken over as they were" in said
    assert "none embedded" in said
    assert "5,000 embeddings" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "photos"]


def test_an_interruption_in_a_destructor_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", raise_again)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Dying()
        time.sleep(30)
    assert time.monotonic() - begun < 20 or os.name == "nt"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_standard_output_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tlpipe", "models", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0


def test_no_words_at_all_are_answered_with_the_help() -> None:
    done = subprocess.run([sys.executable, "-m", "tlpipe"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Start here:" in done.stderr
    assert "Traceback" not in done.stderr
