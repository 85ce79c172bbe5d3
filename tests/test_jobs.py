"""Job files: every mistake at once, nothing touched; runs, and what their records say."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import tlpipe
from conftest import Trained, write_classes, write_image
from tlpipe.cli.main import cli
from tlpipe.errors import JobError, OutputError, StaleFeaturesError
from tlpipe.types import Progress
from tlpipe.workflows.jobs import running
from tlpipe.workflows.jobs.reading import read_job
from tlpipe.workflows.jobs.record import Record
from tlpipe.workflows.jobs.schema import COMMANDS, PLACES, shape_of
from tlpipe.workflows.jobs.values import expanded


def write_job(folder: Path, text: str, name: str = "job.toml") -> Path:
    path = folder / name
    path.write_text("schema = 1\n" + text, encoding="utf-8")
    return path


def mistakes_of(path: Path, **environment: str) -> list[str]:
    with pytest.raises(JobError) as caught:
        read_job(path, environment)
    assert str(caught.value).startswith(f"The job {str(path)!r} has ")
    return caught.value.mistakes


def record_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.with_name(f"{output.name}.run.json").read_bytes())
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, trained: Trained) -> Path:
    """A folder with photos, features and a classifier."""
    write_classes(tmp_path / "photos", 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "classifier.onnx").write_bytes(trained.classifier.read_bytes())
    (tmp_path / "features.h5").write_bytes(trained.features.read_bytes())
    return tmp_path


EMBED = 'command = "embed"\nsource = "photos"\n'
CLASSIFY = 'command = "classify"\nsource = "photos"\nclassifier = "classifier.onnx"\n'


@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_has_the_options_of_the_command_line(command: str) -> None:
    flags = {
        option.removeprefix("--").replace("-", "_")
        for parameter in cli.commands[command].params
        for option in parameter.opts
        if isinstance(parameter, click.Option) and option.startswith("--")
    }
    arguments = {p.name for p in cli.commands[command].params if isinstance(p, click.Argument)}
    shape = shape_of(command)
    of_the_shell = {"help", "quiet", "verbose", "report"}  # a page is for who stands before it
    assert {*shape.settings, *shape.places} == flags - of_the_shell | arguments
    assert set(shape.places) <= set(PLACES)


def test_every_mistake_is_listed_and_nothing_is_touched(place: Path) -> None:
    (place / "out" / "p.csv").write_text("precious")
    path = write_job(
        place,
        """command = "classify"
sources = "photos"
source = "nowhere"
backbone = "resnet"
top_k = 3
classifier = "none.onnx"
output = "out/p.csv"
[options]
batch-size = 3
batch_size = 0
threads = "all"
device = "cudo"
max_rejects = "5 percent"
decode = "exact"
output = "x"
profile = "no/trace.json"
allow_outside = ["/nowhere", 3]
overwrite = "yes"
precision = "${NUMBERS}"
""",
    )
    before = sorted(place.rglob("*"))
    result = run("run", path)
    assert result.exit_code == 1
    assert (result.stdout, "Traceback" in result.stderr) == ("", False)
    head, *lines = result.stderr.splitlines()
    assert head == f"Error: The job {str(path)!r} has {len(lines)} mistakes; nothing was done."
    assert [line.removeprefix("  ") for line in lines] == [
        (
            "sources is unknown; known are ['schema', 'command', 'options', 'source', 'classifier',"
            " 'output']. Did you mean 'source'?"
        ),
        "backbone is of no use to the command 'classify'; leave it out.",
        "top_k stands at the top; move 'top_k' to [options].",
        "[options] batch-size is unknown. Did you mean 'batch_size'?",
        "[options] decode is an option of train and embed, not of classify; leave it out.",
        "[options] output stands in [options]; move it to the top of the file.",
        "[options] threads is 'all'; it must be a whole number.",
        (
            "[options] device is 'cudo'; it must be one of ['auto', 'cpu', 'cuda', 'tensorrt']. Did"
            " you mean 'cuda'?"
        ),
        (
            "[options] max_rejects is no such value: '5 percent' is neither a number of images nor"
            " a share like 5%."
        ),
        "[options] allow_outside is ['/nowhere', 3]; it must be a list of texts.",
        "[options] overwrite is 'yes'; it must be true or false.",
        "[options] precision is '${NUMBERS}'; the environment variable 'NUMBERS' is not set.",
        "[options] batch_size: The batch size is 0; it must be an int of at least 1.",
        (
            f"source: The source {str(place / 'nowhere')!r} does not exist. Give a folder of"
            " images, an image, a manifest (.csv, .jsonl, .parquet), an archive (.tar, .zip), an"
            " IDX file or a NumPy file."
        ),
        f"classifier: The classifier {str(place / 'none.onnx')!r} does not exist.",
        (
            f"output: The output {str(place / 'out' / 'p.csv')!r} exists already. Choose another"
            " 'output', or replace it with 'overwrite = true'."
        ),
        (
            f"[options] profile: The folder {str(place / 'no')!r} of the output 'trace.json' does"
            " not exist. Create it first."
        ),
    ]
    assert sorted(place.rglob("*")) == before
    assert (place / "out" / "p.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "mistakes"),
    [
        (b"schema = 1\ncommand = \n", ["the file is no TOML: Invalid value"]),
        (b"\xff\xfe", ["the file is no UTF-8 text"]),
        (b"a = " + b"[" * 100_000, ["the file is no TOML"]),
        (b"x" * (1 << 21), ["the file has more than 1 MB"]),
        (b"", ["schema is missing; write 'schema = 1'.", "command is missing; it must be one of"]),
        (
            b"schema = 2\ncommand = 'clasify'\n",
            ["schema is 2; this tlpipe reads 1.", "command is 'clasify'; it must be one of"],
        ),
        (b"schema = true\ncommand = ['embed']\n", ["schema is True;", "command is ['embed'];"]),
        (b"schema = 1\ncommand = 'train_head'\n", ["Did you mean 'train-head'?"]),
        (
            b"schema = 1\ncommand = 'embed'\noptions = 3\n",
            [
                "source is missing; the command 'embed' needs it.",
                "output is missing; the command 'embed' needs it.",
                "options is 3; it must be a table: [options].",
            ],
        ),
    ],
)
def test_a_file_that_is_no_job(tmp_path: Path, content: bytes, mistakes: list[str]) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    found = mistakes_of(path)
    assert len(found) == len(mistakes)
    for line, expected in zip(found, mistakes, strict=True):
        assert expected in line
        assert "\n" not in line


def test_a_missing_job_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in mistakes_of(tmp_path / "none.toml")[0]
    assert "cannot be read" in mistakes_of(tmp_path)[0]
    assert "cannot be read" in mistakes_of(Path("a\0b"))[0]


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ("top_k = 9", "[options] top_k is 9; it must be from 1 to 3, the number of classes."),
        ("top_k = true", "[options] top_k is True; it must be a whole number."),
        ("max_rejects = 1.5", "[options] max_rejects: max_rejects is 1.5; it must be an int"),
        ("max_rejects = nan", "[options] max_rejects: max_rejects is nan; it must be an int"),
        ("max_rejects = '100%'", "[options] max_rejects is no such value: '100%' is neither"),
        ("profile = 'x.txt'", "[options] profile: The trace"),
        ("profile = ''", "[options] profile is ''; it must be a path."),
        ("profile = '~/x.json'", "[options] profile is '~/x.json'; write '${HOME}/x.json'"),
        ('profile = "a\\u0000.json"', "a path cannot hold the NUL character."),
        ("allow_outside = ['none']", "[options] allow_outside: The folder"),
        ("device = 3", "[options] device is 3; it must be one of ['auto', 'cpu',"),
        ("precision = 'int8'", "[options] precision: The classifier is fp32; it cannot be run at"),
        ("precision = 'fp16'\ndevice = 'cpu'", "[options] precision: The precision 'fp16' is not"),
        ("split = 'test'", "[options] split is an option of evaluate, not of classify; leave it"),
    ],
)
def test_one_mistake(place: Path, options: str, mistake: str) -> None:
    path = write_job(place, f'{CLASSIFY}output = "out/p.csv"\n[options]\n{options}\n')
    (found,) = mistakes_of(path)
    assert mistake in found
    assert "--" not in found


@pytest.mark.parametrize(
    ("options", "mistakes"),
    [
        (
            'multi_label = true\nclass_weight = "balanced"\nlabel_separator = ";"\n',
            ["class_weight, multi_label: Several labels per image take a linear head"],
        ),
        (
            'head = "knn"\nclass_weight = "balanced"\ncoverage = 2\nseed = -1\n',
            [
                "head, class_weight: A head 'knn' has no class weights. Leave out 'class_weight'.",
                "coverage: 'coverage' is 2; it must lie between 0 and 1.",
                "seed: 'seed' is -1; it must be at least 0.",
            ],
        ),
        ('label_separator = ";"', ["label_separator: The label separator ';' separates nothing"]),
        ('memory = "1MB"', ["memory: 'memory' is 1 MB; training needs at least"]),
        ('memory = "lots"', ["memory is no such value: 'lots' is no size such as 800MB or 4GB."]),
        ("threads = 0", ["threads: The number of threads is 0", "threads: 'threads' is 0"]),
        ('pooling = "max"', ["pooling is 'max'; it must be one of ['mean', 'cls', 'flatten']."]),
        ("image_size = [0, 5]", ["image_size is [0, 5]; it must be [height, width] in pixels."]),
    ],
)
def test_contradictions_are_those_of_the_options_themselves(
    place: Path, tiny_card_path: Path, options: str, mistakes: list[str]
) -> None:
    text = f'command = "train"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    found = mistakes_of(write_job(place, f'{text}output = "out/c.onnx"\n[options]\n{options}'))
    assert len(found) == len(mistakes)
    for expected in mistakes:
        assert any(f"[options] {expected}" in line for line in found), found


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (EMBED + 'output = "out/f.csv"', ["must end in .h5 or .hdf5"]),
        (EMBED + 'output = "no/f.csv"', ["must end", "does not exist"]),
        (EMBED + 'output = "out"', ["is a folder"]),
        (
            EMBED + 'output = "out/f.h5"\nbackbone = "efficientnet"',
            ["backbone: There is no backbone 'efficientnet' in the catalogue. Did you mean"],
        ),
        (
            EMBED + 'output = "out/f.h5"\nbackbone = "none.onnx"',
            ["/none.onnx' does not exist."],
        ),
        ('command = "train-head"\nfeatures = "classifier.onnx"\noutput = "o.onnx"', ["features: "]),
        (
            'command = "train-head"\nfeatures = "features.h5"\noutput = "features.h5"',
            ["must end in .onnx", "is a file that this command reads"],
        ),
        (
            'command = "evaluate"\nsource = "photos"\nclassifier = "features.h5"\noutput="e.json"',
            ["classifier: "],
        ),
        (CLASSIFY + 'output = "job.toml"', ["must end in", "is a file that this command reads"]),
        (CLASSIFY + "output = 3", ["output is 3; it must be a text."]),
    ],
)
def test_what_a_job_names_is_looked_at(
    place: Path, tiny_card_path: Path, text: str, mistakes: list[str]
) -> None:
    if text.startswith(EMBED) and "backbone" not in text:
        text += f'\nbackbone = "{tiny_card_path}"'
    found = mistakes_of(write_job(place, text))
    assert len(found) == len(mistakes), found
    for line, expected in zip(found, mistakes, strict=True):
        assert expected in line


def test_variables_of_the_environment(place: Path) -> None:
    text = f'{CLASSIFY}output = "out/${{WHAT}}-${{DAY}}.csv"\n'
    job = read_job(write_job(place, text), {"WHAT": "p", "DAY": "2026-11-24"})
    assert job.output == place / "out" / "p-2026-11-24.csv"
    assert mistakes_of(write_job(place, text), WHAT="", DAY="1") == [
        "output is 'out/${WHAT}-${DAY}.csv'; the environment variable 'WHAT' is empty."
    ]
    assert expanded("$x $${A} ${A}${A}", {"A": "${B}"}) == "$x ${A} ${B}${B}"
    for wrong in ("${", "${}", "${A", "${a b}"):
        with pytest.raises(ValueError, match=r"must be \$\{NAME\}"):
            expanded(wrong, {"A": "1"})


def test_paths_are_relative_to_the_job_file(
    place: Path, tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "out")
    write_job(place, f'{CLASSIFY}output = "out/p.csv"\n[options]\nprofile = "out/t.json"\n')
    result = run("run", "../job.toml")
    assert result.exit_code == 0, result.stderr
    names = {path.name for path in (place / "out").iterdir()}
    assert names - {".p.csv.lock"} == {"p.csv", "p.csv.run.json", "t.json"}
    found = record_of(place / "out" / "p.csv")["job"]
    assert found["source"] == str(place / "photos")
    assert Path(found["path"]).samefile(place / "job.toml")


def test_a_job_classifies_with_columns_and_embeddings(place: Path) -> None:
    rows = [f"{p},{p.stem}\n" for p in sorted((place / "photos").rglob("*.png"))]
    (place / "m.csv").write_text("path,camera\n" + "".join(rows))
    text = 'command = "classify"\nsource = "m.csv"\nclassifier = "classifier.onnx"\n'
    text += 'output = "out/p.csv"\n[options]\n'
    wrong = write_job(place, text + 'columns = ["lens"]\nembeddings = "out/e.csv"\n')
    columns, embeddings = mistakes_of(wrong)
    assert columns.startswith("[options] columns: The source ")
    assert embeddings.startswith("[options] embeddings: The output ")
    path = write_job(place, text + 'columns = "camera"\nembeddings = "out/e.h5"\n')
    assert run("run", path).exit_code == 0
    assert "camera" in (place / "out" / "p.csv").read_text().splitlines()[0]
    found = record_of(place / "out" / "p.csv")
    assert [Path(name).name for name in found["outputs"]] == ["p.csv", "e.h5"]
    again = CLASSIFY.replace("photos", "out/e.h5") + 'output = "out/again.csv"\n'
    dry = run("run", "--dry-run", write_job(place, again))
    assert "the backbone is not run" in dry.stdout, dry.stderr
    assert run("run", place / "job.toml").exit_code == 0
    inputs = record_of(place / "out" / "again.csv")["inputs"]
    assert inputs["source"]["sha256"] == sha256(place / "out" / "e.h5")


def test_a_job_takes_amounts_as_the_command_line_and_as_numbers(
    place: Path, tiny_card_path: Path
) -> None:
    text = f'command = "train"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    text += 'output = "out/c.onnx"\n[options]\n'
    job = read_job(write_job(place, text + 'max_rejects = "5%"\nmemory = "1GB"\nthreads = 2\n'))
    assert job.arguments["options"] == tlpipe.RunOptions(max_rejects=0.05, threads=2)
    assert job.arguments["head"] == tlpipe.TrainOptions(memory_bytes=1 << 30, threads=2)
    job = read_job(write_job(place, text + "max_rejects = 3\nmemory = 1073741824\n"))
    assert job.arguments["options"] == tlpipe.RunOptions(max_rejects=3)
    assert job.arguments["head"] == tlpipe.TrainOptions(memory_bytes=1 << 30)
    assert job.card is not None
    assert job.card.name == "tiny.test"


def test_all_commands_run_and_are_recorded(place: Path, tiny_card_path: Path) -> None:
    (place / "photos" / "red" / "broken.png").touch()
    backbone = f'backbone = "{tiny_card_path}"\n'
    source = 'source = "photos"\n'

    def done(text: str, output: str, code: int = 0) -> dict[str, Any]:
        path = write_job(place, text)
        result = run("run", path)
        assert result.exit_code == code, result.stderr
        found = record_of(place / output)
        assert found["exit_code"] == code
        assert found["status"] == ("done" if code == 0 else "too-many-rejects")
        assert found["job"]["sha256"] == sha256(path)
        for facts in found["outputs"].values():
            assert facts["sha256"] == sha256(Path(facts["path"]))
            assert facts["size_bytes"] == Path(facts["path"]).stat().st_size
        assert found["error"] is None
        assert f"Recorded in {str(place / output) + '.run.json'!r}." in result.stderr
        return found

    embedded = done(
        f'command = "embed"\n{source}{backbone}output = "out/f.h5"\n[options]\nmax_rejects = 0\n',
        "out/f.h5",
        3,
    )
    assert (
        embedded["counts"] | {"count": 12, "embedded": 12, "dim": 8, "rejected": 1}
        == (embedded["counts"])
    )
    assert embedded["rejects"] == {"empty": 1}
    assert embedded["provider"] == "CPUExecutionProvider"
    assert embedded["source"]["classes"] == {"blue": 4, "green": 4, "red": 5}
    assert embedded["inputs"]["backbone"]["name"] == "tiny.test"
    with_header = tlpipe.inspect(place / "out" / "f.h5")
    assert embedded["fingerprint"] in json.dumps(with_header.facts, default=str)

    trained = done(
        f'command = "train"\n{source}{backbone}output = "out/c.onnx"\n[options]\nseed = 3\n',
        "out/c.onnx",
    )
    assert {Path(path).name for path in trained["outputs"]} == {
        *("c.onnx", "c.metrics.json", "c.head.onnx", "c.features.h5")
    }
    assert trained["fingerprint"] == embedded["fingerprint"]
    assert trained["job"]["options"]["seed"] == 3
    assert trained["metrics"]["accuracy"] == 1.0

    text = 'command = "train-head"\nfeatures = "out/f.h5"\noutput = "out/h.onnx"\n'
    head = done(text, "out/h.onnx")
    assert head["inputs"]["features"]["sha256"] == sha256(place / "out" / "f.h5")
    assert head["counts"]["classes"] == 3
    assert head["source"] is None

    classified = done(CLASSIFY + 'output = "out/p.csv"\n[options]\ntop_k = 2\n', "out/p.csv")
    assert classified["inputs"]["classifier"]["sha256"] == sha256(place / "classifier.onnx")
    assert classified["counts"]["count"] == 13
    assert sum(classified["counts"]["predicted"].values()) == 12
    assert len((place / "out" / "p.csv").read_text().splitlines()) == 14

    text = f'command = "evaluate"\n{source}classifier = "classifier.onnx"\noutput = "out/e.json"\n'
    evaluated = done(text, "out/e.json")
    assert evaluated["counts"] == {"judged": 12, "rejected": 1}
    assert evaluated["metrics"]["accuracy"] == 1.0
    assert evaluated["provider"] == "CPUExecutionProvider"

    for found in (embedded, trained, head, classified, evaluated):
        assert (found["format"], found["format_version"]) == ("tlpipe-run", 1)
        assert found["versions"]["python"] == platform.python_version()
        assert {"tlpipe", "numpy", "h5py"} <= set(found["versions"])
        assert any(name.startswith("onnxruntime") for name in found["versions"])
        assert "pytest" not in found["versions"]
        assert found["machine"]["host"] == platform.node()
        assert found["machine"]["cores"] >= 1
        timings = found["timings"]
        assert timings["start"] <= timings["end"]
        assert timings["seconds"] > 0


def test_a_run_that_fails_is_recorded(place: Path, tiny_card_path: Path, trained: Trained) -> None:
    text = f'command = "embed"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    path = write_job(place, text + 'output = "features.h5"\n[options]\nmax_gone = 0\n')
    before = sha256(place / "features.h5")
    result = run("run", path)
    assert result.exit_code == 1
    found = record_of(place / "features.h5")
    assert (found["status"], found["exit_code"], found["outputs"]) == ("failed", 1, {})
    assert found["error"]["type"] == "SourceError"
    assert "are not in" in found["error"]["message"]
    assert "--max-gone" in found["error"]["hint"]
    assert found["timings"]["end"] is not None
    assert sha256(place / "features.h5") == before


def test_a_run_that_is_interrupted_is_recorded(place: Path) -> None:
    def stop(at: Progress) -> None:
        assert record_of(place / "out" / "p.csv")["status"] == "running"
        raise KeyboardInterrupt

    job = read_job(write_job(place, CLASSIFY + 'output = "out/p.csv"\n'))
    with pytest.raises(KeyboardInterrupt):
        tlpipe.run(job, progress=stop)
    found = record_of(place / "out" / "p.csv")
    assert (found["status"], found["exit_code"]) == ("interrupted", 130)
    assert found["source"]["count"] == 12
    assert not (place / "out" / "p.csv").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
def test_a_job_that_is_told_to_stop_goes_on_where_it_was(
    tmp_path: Path, tiny_card_path: Path
) -> None:
    first = write_image(tmp_path / "photos" / "c" / "0.png", 1)
    os.utime(first, ns=(10**18, 10**18))
    for index in range(1, 5000):
        os.link(first, tmp_path / "photos" / "c" / f"{index}.png")
    text = f'command = "embed"\nsource = "photos"\nbackbone = "{tiny_card_path}"\noutput = "f.h5"\n'
    path = write_job(tmp_path, text + "[options]\nbatch_size = 1\n")
    command = [sys.executable, "-m", "tlpipe", "--log-format", "json", "run", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    begun = tmp_path / ".f.h5.parts" / "file.tmp"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if begun.exists() and begun.stat().st_size > 100_000:  # some hundred rows
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    events = [json.loads(line) for line in errors.splitlines()]
    (stopped,) = (event for event in events if event["event"] == "interrupted")
    found = record_of(tmp_path / "f.h5")
    assert (found["status"], found["exit_code"]) == ("interrupted", 143)
    assert found["error"]["notes"] == stopped["notes"]
    assert found["error"]["message"] == "Stopped by signal 15."
    (kept,) = re.findall(r"([0-9,]+) embeddings of this run are kept", stopped["notes"][-1])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"event": "record"' in done.stderr
    found = record_of(tmp_path / "f.h5")
    assert (found["status"], found["counts"]["embedded"]) == ("done", 0)
    assert found["counts"]["kept"] == int(kept.replace(",", ""))


def test_a_record_replaces_a_record_and_nothing_else(place: Path) -> None:
    path = write_job(place, CLASSIFY + 'output = "out/p.csv"\n[options]\noverwrite = true\n')
    for _ in range(2):
        assert run("run", path).exit_code == 0
    record = place / "out" / "p.csv.run.json"
    record.write_text('{"mine": 1}')
    (found,) = mistakes_of(path)
    assert "would have its run record in" in found
    assert record.read_text() == '{"mine": 1}'
    record.unlink()
    record.mkdir()
    (found,) = mistakes_of(path)
    assert "is a folder" in found


def test_a_record_is_whole_or_not_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[str]]
) -> None:
    """The disk is full when the record is to be written: first at the end, then at the start."""
    job = read_job(write_job(place, CLASSIFY + 'output = "out/p.csv"\n'))
    end = Record.end

    def full(*_: object, **__: object) -> None:
        raise OutputError("The disk is full.")

    monkeypatch.setattr(Record, "end", full)
    with pytest.raises(OutputError, match="full"):
        tlpipe.run(job)
    assert (place / "out" / "p.csv").exists()
    assert record_of(place / "out" / "p.csv")["status"] == "running"
    monkeypatch.setattr(running, "call", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        tlpipe.run(job)
    assert caught.value.__notes__ == ["The run record could not be written: The disk is full."]
    monkeypatch.setattr(Record, "end", end)
    with pytest.raises(ZeroDivisionError):
        tlpipe.run(job)
    assert record_of(place / "out" / "p.csv")["error"]["message"] == "division by zero"
    (place / "out" / "p.csv.run.json").unlink()
    monkeypatch.setattr(Record, "begin", full)
    with pytest.raises(OutputError, match="full"):
        tlpipe.run(job)
    assert leftovers() == []


def test_the_jobs_of_the_documents_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[1] / "docs"
    text = (docs / "reference" / "jobs.md").read_text(encoding="utf-8")
    nightly = (docs / "how-to" / "nightly.md").read_text(encoding="utf-8")
    monkeypatch.setenv("DATE", "2026-11-24")
    embed, *_ = re.findall(r"```toml[^\n]*\n(.*?)```", nightly, re.S)
    (classify,) = re.findall(r"```toml[^\n]*\n(.*?)```", text, re.S)
    for number, job in enumerate((embed, classify)):
        path = place / f"{number}.toml"
        path.write_text(job)
        result = run("run", path)
        assert result.exit_code == 0, result.stderr
    assert (place / "predictions-2026-11-24.csv.run.json").is_file()
    shown = run("inspect", place / "photos.h5.run.json", "--json")
    assert json.loads(shown.stdout)["kind"] == "record of a run"
    table = re.findall(r"^\| (`.*?) \|", text, re.M)
    documented = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert set(record_of(place / "photos.h5")) <= documented


def test_every_event_stands_in_the_document() -> None:
    page = Path(__file__).parents[1] / "docs" / "reference" / "jobs.md"
    text = page.read_text(encoding="utf-8")
    root = Path(tlpipe.__file__).parent / "cli"
    source = "".join(path.read_text(encoding="utf-8") for path in root.glob("*.py"))
    named = set(re.findall(r'emit\(\s*"([a-z]+)"', source))
    named |= {"notice", "result", "survey", "rejects", "record"}
    assert {name for name in named if f"`{name}`" not in text} == set()


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes() if p.is_file() else b"")
        for p in folder.rglob("*")
    }


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place: Path) -> None:
    (place / "photos" / "red" / "broken.png").touch()
    path = write_job(place, CLASSIFY + 'output = "out/p.jsonl"\n[options]\ntop_k = 3\n')
    before = snapshot(place)
    result = run("run", "--dry-run", path)
    assert result.exit_code == 0, result.stderr
    assert snapshot(place) == before
    assert "Classes (3): blue 4, green 4, red 5." in result.stderr
    job, output, measured, rejected, cost, size = result.stdout.splitlines()
    assert job == f"Dry run of {str(path)!r}: classify."
    assert output == f"The output {str(place / 'out' / 'p.jsonl')!r} would be written."
    assert measured.startswith("Measured on 13 images of 13, spread over the source: ")
    assert measured.endswith(" images/s on CPUExecutionProvider.")
    assert rejected == "Of these 1 would be rejected: 1 empty."
    assert cost.startswith("13 images would take about ")
    assert size.startswith("The output would have about ")
    found = tlpipe.dry_run(path)
    assert run("run", path).exit_code == 0
    assert found.output_bytes == (place / "out" / "p.jsonl").stat().st_size


def test_a_dry_run_of_embeddings_tells_what_is_there(
    place: Path, tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for photo in (place / "photos").rglob("*.png"):
        os.utime(photo, ns=(10**18, 10**18))
    text = f'command = "embed"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    path = write_job(place, text + 'output = "out/f.h5"\n')
    before = snapshot(place)
    found = tlpipe.dry_run(path)
    assert found.meaning.endswith("would be written anew.")
    assert (found.count, found.sampled, found.provider) == (12, 12, "CPUExecutionProvider")
    assert snapshot(place) == before
    tlpipe.run(path)
    assert found.output_bytes is not None
    assert found.output_bytes == pytest.approx((place / "out" / "f.h5").stat().st_size, rel=0.02)
    before = snapshot(place)
    found = tlpipe.dry_run(path)
    assert (found.count, found.sampled, found.rate, found.seconds) == (0, 0, None, 0.0)
    assert found.meaning.endswith("is up to date: nothing would be done.")
    write_image(place / "photos" / "red" / "new.png", 99)
    (place / "photos" / "blue" / "000.png").unlink()
    found = tlpipe.dry_run(path)
    assert "Rows kept: 11; images to embed: 1; rows dropped: 1." in found.meaning
    assert (found.count, found.sampled) == (1, 12)
    anew = write_job(place, text + 'output = "out/f.h5"\n[options]\noverwrite = true\n')
    other = tlpipe.dry_run(anew)
    assert "would be replaced; nothing of it is used." in other.meaning
    assert other.count == 12
    stale = write_job(place, text + 'output = "out/f.h5"\n[options]\ndecode = "exact"\n')
    with pytest.raises(StaleFeaturesError):
        tlpipe.dry_run(stale)
    assert {n: s for n, s in snapshot(place).items() if "f.h5" in n} == {
        n: s for n, s in before.items() if "f.h5" in n
    }


def test_a_dry_run_tells_of_a_run_that_was_cut_short(place: Path, tiny_card_path: Path) -> None:
    for photo in (place / "photos").rglob("*.png"):
        os.utime(photo, ns=(10**18, 10**18))
    text = f'command = "embed"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    path = write_job(place, text + 'output = "out/f.h5"\n[options]\nthreads = 1\nbatch_size = 1\n')

    def stop(at: Progress) -> None:
        if at.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tlpipe.run(path, progress=stop)
    before = snapshot(place)
    found = tlpipe.dry_run(path)
    (taken_up,) = re.findall(r"a run that was cut short: (\d+)\.", found.meaning)
    assert int(taken_up) > 0
    assert found.count == 12 - int(taken_up)
    assert snapshot(place) == before


def test_dry_runs_of_the_other_commands(place: Path, tiny_card_path: Path) -> None:
    head = write_job(place, 'command = "train-head"\nfeatures = "features.h5"\noutput = "h.onnx"\n')
    result = run("run", "--dry-run", head)
    assert result.exit_code == 0, result.stderr
    assert "Found 45 images in a feature file." in result.stderr
    assert "its training is not measured beforehand" in result.stdout
    text = f'command = "train"\nsource = "photos"\nbackbone = "{tiny_card_path}"\n'
    found = tlpipe.dry_run(write_job(place, text + 'output = "out/c.onnx"\n'))
    assert "c.onnx' would be written. The feature file " in found.meaning
    assert found.sampled == 12
    text = 'command = "evaluate"\nsource = "album.csv"\nclassifier = "classifier.onnx"\n'
    rows = [
        f"photos/{p.parent.name}/{p.name},{p.parent.name},{'test' if p.stem == '000' else 'train'}"
        for p in sorted((place / "photos").rglob("*.png"))
    ]
    (place / "album.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    found = tlpipe.dry_run(write_job(place, text + 'output = "out/e.json"\n'))
    assert (found.survey.count, found.count, found.sampled) == (12, 3, 3)
    text = f'command = "train"\nsource = "photos/red"\nbackbone = "{tiny_card_path}"\n'
    one = write_job(place, text + 'output = "o.onnx"\n')
    result = run("run", "--dry-run", one)
    assert result.exit_code == 1
    assert "has no labels; a classifier needs two" in result.stderr
    assert list((place / "out").iterdir()) == []


def test_a_classification_that_was_stopped_is_taken_up(place: Path) -> None:
    text = CLASSIFY + 'output = "out/p.csv"\n[options]\nthreads = 1\nbatch_size = 1\n'
    path = write_job(place, text)

    def stop(at: Progress) -> None:
        if at.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tlpipe.run(path, progress=stop)
    before = snapshot(place)
    assert "rows that it has finished are taken up" in tlpipe.dry_run(path).notices[0]
    assert snapshot(place) == before
    tlpipe.run(path)
    assert len((place / "out" / "p.csv").read_text().splitlines()) == 13
    assert record_of(place / "out" / "p.csv")["status"] == "done"


def test_a_dry_run_as_json(place: Path) -> None:
    path = write_job(place, CLASSIFY + 'output = "out/p.csv"\n')
    result = run("--log-format", "json", "run", "--dry-run", path)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [event["event"] for event in events] == ["notice", "survey", "estimate", "exit"]
    assert (events[2]["count"], events[2]["sampled"]) == (12, 12)
    assert events[2]["job"]["output"] == str(place / "out" / "p.csv")
    wrong = run("--log-format", "json", "run", write_job(place, 'command = "embed"\n'))
    error = json.loads(wrong.stderr.splitlines()[0])
    assert [line.split()[0] for line in error["mistakes"]] == ["source", "output"]


def test_the_pace_of_a_sample() -> None:
    from tlpipe.workflows.jobs.sampling import pace_of

    steady = pace_of([2.0 + i / 10 for i in range(400)])
    assert steady.seconds == pytest.approx(0.1)
    assert steady.low == pytest.approx(0.1)
    assert steady.high == pytest.approx(0.1)
    slow_start = pace_of([*(float(i) for i in range(80)), *(80 + i / 10 for i in range(320))])
    assert slow_start.seconds == pytest.approx(0.1)  # the first fifth is left out
    assert pace_of([]).seconds == pace_of([1.0]).seconds == 0.0
    few = pace_of([i / 10 for i in range(30)])
    assert (few.seconds, few.low) == (pytest.approx(0.1), None)
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        found = pace_of(np.cumsum(rng.exponential(0.01, 500)).tolist())
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.01 <= found.high
    assert 0.90 < held / 300 < 0.99


def test_a_sample_is_spread_and_reads_as_the_source(place: Path) -> None:
    from tlpipe.workflows.jobs.sampling import sampled

    rows = [f"photos/red/00{i % 4}.png,{'red' if i % 2 else ''},v{i}" for i in range(100)]
    (place / "m.csv").write_text("path,label,note\n" + "\n".join(rows) + "\n")
    source = tlpipe.source(place / "m.csv")
    sample = sampled(source, 50, 5, lambda label, split: label is not None)
    keys = [item.key for item in sample.items()]
    assert len(keys) == sample.survey.count == 5
    assert set(sample.survey.classes) == {"red"}
    again = sampled(source, 100, 200, lambda label, split: True)
    assert [i.place for i in again.items()] == [i.place for i in source.items()]
    assert sum(len(b.stats) for b in again.scan(stats=True)) == 100


def test_a_job_reads_no_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "j.toml"
    path.write_text('schema = 1\ncommand = "embed"\nsource = "-"\noutput = "f.h5"\n')
    assert mistakes_of(path) == [
        "source is '-'; a job does not read standard input. Name a manifest of the images."
    ]
