"""classify: what its rows say, what a run that is cut short leaves, and stored embeddings."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import tlpipe
from conftest import Trained, aged, write_image
from tlpipe.cli.main import cli
from tlpipe.errors import (
    BackboneError,
    ClassifierError,
    LockedError,
    OptionError,
    SourceError,
    StaleFeaturesError,
)
from tlpipe.lock import writer_lock
from tlpipe.stages.predictions import Columns, PredictionParts, parts, prediction_writer
from tlpipe.types import Progress
from tlpipe.workflows import classify_run

NAMES = ("red", "green", "blue")


@pytest.fixture
def root(photos: Path, tmp_path: Path) -> Path:
    """Images of long ago, and a file among them that is no image."""
    found: Path = shutil.copytree(photos, tmp_path / "photos")
    (found / "green" / "007.png").write_bytes(b"no image")
    return aged(found)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 8)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def stop_at(count: int, error: BaseException | None = None) -> Any:
    def stop(at: Progress) -> None:
        if at.done == count:
            raise error or KeyboardInterrupt

    return stop


def expected(trained: Trained, root: Path, path: Path) -> bytes:
    tlpipe.classify(trained.classifier, root, path)
    return path.read_bytes()


def cut_short(trained: Trained, source: Any, path: Path, at: int, **more: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        tlpipe.classify(trained.classifier, source, path, progress=stop_at(at), **more)
    (note,) = caught.value.__notes__
    assert note == f"{at} predictions of this run are kept; the same command goes on from there."


def test_all_formats_say_the_same(trained: Trained, root: Path, tmp_path: Path) -> None:
    columns = Columns(3, unknown=True, sets=True, keep=("label",))
    for suffix in ("csv", "jsonl", "parquet"):
        result = tlpipe.classify(
            trained.classifier, root, tmp_path / f"p.{suffix}", columns=columns
        )
        assert (result.count, result.rejects) == (45, {"not-an-image": 1})
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    for cells, line, row in zip(rows_of(tmp_path / "p.csv"), lines, table, strict=True):
        assert list(cells) == list(row)
        said = json.loads(line)
        names = ("key", "label", "status")
        assert [row[n] for n in names] == [cells[n] for n in names] == [said[n] for n in names]
        assert row["key"].split("/")[0] == row["label"]
        if row["status"] == "rejected":
            assert row["reason"] == cells["reason"] == said["reason"] == "not-an-image"
            assert row["class"] is row["probability_3"] is row["set"] is row["unknown"] is None
            continue
        assert row["class"] == cells["class"] == said["class"]
        top = [(row[f"class{k}"], row[f"probability{k}"]) for k in ("", "_2", "_3")]
        assert top == [(t["class"], t["probability"]) for t in said["top"]]
        assert [f"{p:.6f}" for _, p in top] == [cells[f"probability{k}"] for k in ("", "_2", "_3")]
        assert (row["unknown"], row["unknown_score"]) == (said["unknown"], said["unknown_score"])
        assert row["set"] == said["set"] == cells["set"].split("|")
        assert row["reason"] is None


def test_parquet_of_several_row_groups(
    trained: Trained, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlpipe.stages.predictions.parquet._GROUP_ROWS", 20)
    tlpipe.classify(trained.classifier, root, tmp_path / "p.parquet")
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 3
    keys = pq.read_table(tmp_path / "p.parquet")["key"].to_pylist()
    tlpipe.classify(trained.classifier, root, tmp_path / "p.csv")
    assert keys == [row["key"] for row in rows_of(tmp_path / "p.csv")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_run_cut_short_goes_on(
    trained: Trained,
    root: Path,
    tmp_path: Path,
    suffix: str,
    leftovers: Callable[[], list[str]],
) -> None:
    path, whole = tmp_path / f"p.{suffix}", tmp_path / f"whole.{suffix}"
    tlpipe.classify(trained.classifier, root, whole)
    cut_short(trained, root, path, 20)
    assert not path.exists()
    assert leftovers() == []
    result = tlpipe.classify(trained.classifier, root, path)
    assert result.kept == 20
    assert path.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f".p.{suffix}.parts").exists()


def test_cut_short_again_and_again(trained: Trained, root: Path, tmp_path: Path) -> None:
    whole, path = expected(trained, root, tmp_path / "whole.csv"), tmp_path / "p.csv"
    for at in (5, 13, 21, 30):
        with pytest.raises(KeyboardInterrupt):
            tlpipe.classify(trained.classifier, root, path, progress=stop_at(at))
    # A row that is a reject is made anew each time; 30 were reached, and one of them is such.
    assert tlpipe.classify(trained.classifier, root, path).kept == 29
    assert path.read_bytes() == whole


def test_what_changed_meanwhile_is_classified_anew(
    trained: Trained, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.csv"
    cut_short(trained, root, path, 30)
    shutil.copy(root / "red" / "001.png", root / "blue" / "003.png")
    for name in ("000.png", "008.png"):  # the first ones of parts
        (root / "blue" / name).unlink()
    write_image(root / "blue" / "0005.png", 99)
    write_image(root / "green" / "007.png", 98)  # was a reject
    result = tlpipe.classify(trained.classifier, root, path)
    assert result.kept == 30 - 4  # changed, removed twice, and the reject
    assert path.read_bytes() == expected(trained, root, tmp_path / "whole.csv")


def test_only_the_same_job_goes_on(
    trained: Trained, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.csv"
    cut_short(trained, root, path, 20)
    result = tlpipe.classify(trained.classifier, root, path, columns=Columns(2))
    assert result.kept == 0
    assert "of another classifier or source, or say other things" in caplog.text
    assert "class_2" in rows_of(path)[0]


def test_a_damaged_part_costs_its_rows_alone(
    trained: Trained, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = expected(trained, root, tmp_path / "whole.csv"), tmp_path / "p.csv"
    cut_short(trained, root, path, 40)
    found = sorted((tmp_path / ".p.csv.parts").glob("*.jsonl"))
    assert len(found) == 5
    content = bytearray(found[1].read_bytes())
    content[-5] ^= 1
    found[1].write_bytes(content)
    found[2].write_bytes(b"{}\n")
    result = tlpipe.classify(trained.classifier, root, path)
    assert result.kept == 40 - 16  # two parts
    assert path.read_bytes() == whole
    assert "cannot be used (its rows are not those that were written)" in caplog.text
    assert "cannot be used: it is no tlpipe-predictions-part-1" in caplog.text
    assert "of another classifier" not in caplog.text


# Every step at which something reaches the disk, and the end of the run.
_STEPS = ["mkdir", *[f"part {n}" for n in range(6)], "complete", "renamed", "removing"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("step", _STEPS)
def test_kill_9_at_any_step(trained: Trained, root: Path, tmp_path: Path, step: str) -> None:
    whole, path = expected(trained, root, tmp_path / "whole.csv"), tmp_path / "p.csv"
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            _die_at(patch, step)
            tlpipe.classify(trained.classifier, root, path)
        os._exit(0)  # it was not killed: seen below
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, step
    finished = step in ("renamed", "removing")
    assert path.exists() == finished
    if finished:
        assert path.read_bytes() == whole
        write_image(root / "red" / "002.png", 77)
        aged(root)  # of the same time of change; what is known of it must not be used
        os.truncate(root / "red" / "002.png", (root / "red" / "002.png").stat().st_size)
    result = tlpipe.classify(trained.classifier, root, path, overwrite=True)
    if finished:
        assert result.kept == 0
        whole = expected(trained, root, tmp_path / "changed.csv")
    elif step.startswith("part"):
        # Of the parts before that one; the reject is in the third one.
        done = 8 * int(step[5:])
        assert result.kept == done - (done >= 24)
    assert path.read_bytes() == whole
    keys = [row["key"] for row in rows_of(path)]
    assert len(keys) == len(set(keys)) == 45
    assert not (tmp_path / ".p.csv.parts").exists()


def _die_at(patch: pytest.MonkeyPatch, step: str) -> None:
    """Have this process killed before a step."""

    def die(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    finish, done = PredictionParts.finish, []

    def finishing(self: PredictionParts) -> None:
        if self._rows:
            done.append(0)
            if step == f"part {len(done) - 1}":
                die()
        finish(self)

    patch.setattr(PredictionParts, "finish", finishing)
    if step == "mkdir":
        patch.setattr(PredictionParts, "begin", die)
    elif step == "part 5":  # the run's last rows are in no part: they are written at once
        patch.setattr(PredictionParts, "complete", die)
    elif step == "complete":
        complete = PredictionParts.complete
        patch.setattr(PredictionParts, "complete", lambda self: (complete(self), die()))
    elif step == "renamed":
        patch.setattr(PredictionParts, "remove", die)
    elif step == "removing":
        patch.setattr(Path, "rmdir", die)


def test_one_run_at_a_time(trained: Trained, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    with writer_lock(path), pytest.raises(LockedError, match="is writing"):
        tlpipe.classify(trained.classifier, root, path)


def test_errors_keep_the_work(
    trained: Trained, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.csv"
    with pytest.raises(SystemExit) as caught:
        tlpipe.classify(trained.classifier, root, path, progress=stop_at(20, SystemExit(143)))
    assert "20 predictions of this run are kept" in caught.value.__notes__[0]
    monkeypatch.setattr(parts, "PART_ROWS", 100)
    with pytest.raises(SystemExit) as caught:
        tlpipe.classify(trained.classifier, root, path, progress=stop_at(19, SystemExit(143)))
    assert not hasattr(caught.value, "__notes__")  # nothing is new
    assert tlpipe.classify(trained.classifier, root, path).kept == 20


def test_a_source_that_goes_away_is_no_row_of_rejects(
    trained: Trained, root: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    for number in range(40):
        shutil.copytree(root, many / str(number))
    with pytest.raises(SourceError, match="went away while it was read"):
        tlpipe.classify(
            trained.classifier,
            many,
            tmp_path / "p.csv",
            progress=lambda at: many.rename(tmp_path / "gone") if at.done == 10 else None,
        )
    assert not (tmp_path / "p.csv").exists()


def test_columns_of_a_manifest(trained: Trained, root: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,id,class,split,label\n"
        + "".join(f"photos/red/{n:03d}.png,i{n},c{n},test,x\n" for n in range(3))
        + "photos/red/000.png,again,,,\n"
        + "gone.png,lost,z,train,\n"
    )
    keep = Columns(keep=("class", "split", "id", "label"))
    tlpipe.classify(trained.classifier, manifest, tmp_path / "p.csv", columns=keep)
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0])[:6] == ["key", "source_class", "split", "id", "label", "status"]
    assert [row["id"] for row in rows] == ["i0", "i1", "i2", "again", "lost"]
    assert [row["source_class"] for row in rows] == ["c0", "c1", "c2", "", "z"]
    assert [row["split"] for row in rows] == ["test", "test", "test", "", "train"]
    assert rows[4]["reason"] == "missing"
    assert rows[0]["class"] == rows[3]["class"]
    with pytest.raises(OptionError, match=r"no further columns \['nope'\]"):
        tlpipe.classify(
            trained.classifier, manifest, tmp_path / "q.csv", columns=Columns(keep=("nope",))
        )
    with pytest.raises(OptionError, match=r"several columns of the names \['id'\]"):
        tlpipe.classify(
            trained.classifier, manifest, tmp_path / "q.csv", columns=Columns(keep=("id", "id"))
        )
    with pytest.raises(OptionError, match="it has none"):
        tlpipe.classify(trained.classifier, root, tmp_path / "q.csv", columns=Columns(keep=("id",)))


def close(rows: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    """Assert that rows say the same, up to the rounding of another graph."""
    for row, other in zip(rows, others, strict=True):
        for name, cell in row.items():
            if "probability" in name or "score" in name:
                assert (cell == "") == (other[name] == "")
                if cell:
                    assert float(cell) == pytest.approx(float(other[name]), abs=2e-5, rel=1e-4)
            else:
                assert cell == other[name], name


def test_given_a_feature_file_the_backbone_is_not_run(
    trained: Trained, root: Path, tmp_path: Path, tiny_card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tlpipe.embed(root, tmp_path / "f.h5", backbone=tiny_card)
    columns = Columns(2, unknown=True, sets=True)
    tlpipe.classify(trained.classifier, root, tmp_path / "p.csv", columns=columns)
    monkeypatch.setattr(classify_run, "run", None)
    result = tlpipe.classify(
        trained.classifier, tmp_path / "f.h5", tmp_path / "q.csv", columns=columns
    )
    assert (result.count, result.rejects) == (45, {"not-an-image": 1})
    rows = rows_of(tmp_path / "p.csv")
    last = [row for row in rows if row["status"] == "rejected"]
    close([row for row in rows if row["status"] == "ok"] + last, rows_of(tmp_path / "q.csv"))
    with pytest.raises(OptionError, match="has no columns to keep"):
        tlpipe.classify(
            trained.classifier,
            tmp_path / "f.h5",
            tmp_path / "r.csv",
            columns=Columns(keep=("label",)),
        )
    with pytest.raises(OptionError, match="keeps embeddings itself"):
        tlpipe.Cached(tmp_path / "f.h5", tmp_path / "g.h5")


def test_other_embeddings_are_refused(
    trained: Trained, photos: Path, tmp_path: Path, tiny_card: Any
) -> None:
    options = tlpipe.RunOptions(decode="exact")
    tlpipe.embed(photos, tmp_path / "f.h5", backbone=tiny_card, options=options)
    with pytest.raises(StaleFeaturesError, match=r"They differ in: decoder: 'pillow-exact-1'"):
        tlpipe.classify(trained.classifier, tmp_path / "f.h5", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_embeddings_are_kept_and_used(trained: Trained, root: Path, tmp_path: Path) -> None:
    features, path = tmp_path / "kept.h5", tmp_path / "p.csv"
    keep = Columns(keep=("label",))
    tlpipe.classify(trained.classifier, root, tmp_path / "plain.csv", columns=keep)
    cached = tlpipe.Cached(root, features)
    result = tlpipe.classify(trained.classifier, cached, path, columns=keep)
    assert result.embedded is not None
    assert result.embedded.embedded == 44
    close(rows_of(tmp_path / "plain.csv"), rows_of(path))
    write_image(root / "blue" / "zzz.png", 5)
    again = tlpipe.classify(trained.classifier, cached, path, columns=keep, overwrite=True)
    assert again.embedded is not None
    assert (again.embedded.embedded, again.count) == (1, 46)
    tlpipe.classify(trained.classifier, root, tmp_path / "plain.csv", columns=keep, overwrite=True)
    close(rows_of(tmp_path / "plain.csv"), rows_of(path))
    # It is a feature file like any other: a head is trained on it.
    tlpipe.train_head(features, tmp_path / "other.onnx")


def test_what_embed_made_serves_as_kept_embeddings(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    features = tmp_path / "f.h5"
    shutil.copy(trained.features, features)
    result = tlpipe.classify(
        trained.classifier, tlpipe.Cached(photos, features), tmp_path / "p.csv"
    )
    assert result.embedded is not None
    assert result.embedded.embedded == 0
    assert result.count == 45


def test_keys_that_come_twice_have_two_rows(trained: Trained, root: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\nphotos/red/000.png\nphotos/red/001.png\nphotos/red/000.png\n")
    tlpipe.classify(trained.classifier, manifest, tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    assert rows[0] == rows[2]
    cached = tlpipe.Cached(manifest, tmp_path / "f.h5")
    tlpipe.classify(trained.classifier, cached, tmp_path / "q.csv")
    assert [row["reason"] for row in rows_of(tmp_path / "q.csv")] == ["", "", "duplicate-key"]


def test_wrong_ways_to_keep_embeddings(
    trained: Trained, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tlpipe.Cached(root, tmp_path / "f.h5")
    with pytest.raises(OptionError, match="was trained on embeddings at 'fp32'"):
        tlpipe.classify(
            trained.classifier,
            cached,
            tmp_path / "p.csv",
            options=tlpipe.RunOptions(precision="bf16"),
        )
    with pytest.raises(tlpipe.TlpipeError, match=r"must end in \.h5"):
        tlpipe.classify(
            trained.classifier, tlpipe.Cached(root, tmp_path / "f.csv"), tmp_path / "p.csv"
        )

    def refusing(*_: Any) -> Any:
        raise BackboneError("It needs ['image'] as well.")

    shutil.copy(trained.features, tmp_path / "f.h5")
    monkeypatch.setattr("tlpipe.workflows.classify_features.head_part", refusing)
    with pytest.raises(ClassifierError, match="cannot be run by itself"):
        tlpipe.classify(trained.classifier, tmp_path / "f.h5", tmp_path / "p.csv")


def test_a_source_that_changes_while_it_is_classified(
    trained: Trained, root: Path, tmp_path: Path
) -> None:
    source = tlpipe.source(root)

    def change(at: Progress) -> None:
        if at.stage == "embed" and at.done == 45:
            write_image(root / "blue" / "0000.png", 3)

    with pytest.raises(StaleFeaturesError, match="has changed while it was"):
        tlpipe.classify(
            trained.classifier,
            tlpipe.Cached(source, tmp_path / "f.h5"),
            tmp_path / "p.csv",
            progress=change,
        )
    assert not (tmp_path / "p.csv").exists()


def test_the_command(trained: Trained, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    arguments = ["classify", str(trained.classifier), str(root), "-o", str(path)]
    result = CliRunner().invoke(cli, [*arguments, "--columns", "label, split"])
    assert result.exit_code == 0, result.output
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first)[:4] == ["key", "label", "split", "status"]
    again = CliRunner().invoke(cli, [*arguments, "--overwrite", "--max-rejects", "0"])
    assert again.exit_code == 3
    assert "1 not-an-image" in again.output
    kept = [*arguments, "--overwrite", "--embeddings", str(tmp_path / "f.h5")]
    assert CliRunner().invoke(cli, kept).exit_code == 0
    given = [*arguments[:2], str(tmp_path / "f.h5"), "-o", str(tmp_path / "q.csv")]
    assert CliRunner().invoke(cli, given).exit_code == 0
    wrong = CliRunner().invoke(cli, [*given, "--columns", "label", "--overwrite"])
    assert (wrong.exit_code, "Leave --columns out" in wrong.output) == (1, True)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    form = classify_run.Form(("a", "b"), Columns())
    with (
        pytest.raises(tlpipe.TlpipeError, match="could not be written"),
        prediction_writer(tmp_path / "no" / "p.csv", form),
    ):
        pass
