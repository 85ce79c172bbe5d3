"""Errors of commands that no other test brings about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from conftest import Trained, write_image
from refusals import refused
from tlpipe import (
    Cached,
    RunOptions,
    TrainOptions,
    UpdateOptions,
    classify,
    dry_run,
    embed,
    evaluate,
    read_job,
    train_head,
    verify,
)
from tlpipe.card import Card
from tlpipe.errors import (
    ClassifierError,
    ClusterError,
    DeviceError,
    ExportError,
    FeatureFileError,
    OptionError,
    OutputError,
    SourceError,
    TrainingDataError,
)
from tlpipe.graph import EMBEDDINGS
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.session import properties_of
from tlpipe.stages.source import open_source
from tlpipe.types import Reason, Reject, Stage
from tlpipe.workflows import export_classifier as export_module
from tlpipe.workflows import knowing as knowing_module
from tlpipe.workflows import ray_crew as crew_module
from tlpipe.workflows.cluster_needs import Needs, needs_of
from tlpipe.workflows.embed_images import embed_images
from tlpipe.workflows.ray_crew import RayCrew
from tlpipe.workflows.sent import SentSource


def with_metadata(path: Path, target: Path, **changes: str) -> Path:
    """A classifier with other metadata, as another program may write them."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save(model, target)
    return target


# Options


def test_options_that_make_no_sense(trained: Trained, photos: Path, tiny_card: Card) -> None:
    with refused(OptionError, "The split 'tests' is unknown", "'validation', 'test'"):
        evaluate(trained.classifier, photos, split="tests")  # type: ignore[arg-type]
    with refused(OptionError, "max_gone is -1; it must be an int of at least 0"):
        UpdateOptions(max_gone=-1)
    options = RunOptions(precision="int8")
    with refused(OptionError, "embedded at fp32, not 'int8'", "Leave the precision out"):
        next(embed_images([photos], backbone=tiny_card, options=options))


# Images that cannot be read


def test_labelled_images_of_which_none_can_be_read(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "red" / "a.png").write_bytes(b"nothing")
    with refused(SourceError, "None of the 1 labelled images", "read: 1 not-an-image"):
        evaluate(trained.classifier, tmp_path / "photos")


class Late:
    """Gives images only after so many were asked for."""

    def __init__(self, reader: Any, after: int) -> None:
        self.reader, self.after, self.reads = reader, after, 0

    def read(self, place: Any) -> Any:
        self.reads += 1
        if self.reads <= self.after:
            return Reject(Stage.SOURCE, Reason.MISSING, "Not yet.")
        return self.reader.read(place)


def test_images_that_come_after_the_precision_was_to_be_settled(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    options = RunOptions(precision="int8", threads=1)
    source = open_source(photos)
    source.reader = never = Late(source.reader, 10**9)
    with refused(FeatureFileError, "None of the 45 images could be embedded"):
        embed(source, tmp_path / "f.h5", backbone=tiny_card, options=options)
    source = open_source(photos)
    source.reader = Late(source.reader, never.reads - 45)  # until the run itself begins
    with refused(SourceError, "Not one image could be used to settle the precision", "fp32"):
        embed(source, tmp_path / "f.h5", backbone=tiny_card, options=options)
    assert not (tmp_path / "f.h5").exists()


# Classifiers


def test_classifiers_that_are_not_as_they_say(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    with refused(ClassifierError, f"{str(tmp_path / 'c.onnx')!r} does not exist", "tlpipe train"):
        verify(tmp_path / "c.onnx")
    classes = json.dumps(["blue", "green", "red", "white"])
    path = with_metadata(trained.classifier, tmp_path / "a.onnx", classes=classes)
    with refused(ClassifierError, str(path), "is damaged: its graph takes", "and 4 classes"):
        classify(path, photos, tmp_path / "p.csv")
    # Of a newer tlpipe, with an arithmetic that this one does not know.
    info = read_metadata(properties_of(trained.classifier), "it")
    made = replace(info, precision="fp7")
    fingerprint = info.card().fingerprint(precision="fp7", decoder=info.decoder)
    assert replace(made, fingerprint=fingerprint).fits(info.card())
    path = with_metadata(
        trained.classifier, tmp_path / "b.onnx", precision="fp7", fingerprint=fingerprint
    )
    with refused(ClassifierError, str(path), "embeddings at 'fp7', which is unknown", "Update"):
        classify(path, Cached(open_source(photos), tmp_path / "f.h5"), tmp_path / "p.csv")


def test_a_joined_network_with_other_embeddings_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = export_module.open_network

    def other(path: Path, execution: Any) -> Any:
        network = opened(path, execution)
        if path.parent == tmp_path:  # the one that is about to be written
            return network
        return SimpleNamespace(
            run=lambda images: {EMBEDDINGS: network.run(images)[EMBEDDINGS] + 1},
            shapes=network.shapes,
        )

    monkeypatch.setattr(export_module, "open_network", other)
    with refused(ExportError, "embeddings are not those of the backbone alone", "Train again"):
        train_head(trained.features, tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()


def test_a_network_with_other_sets_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = knowing_module.conformal.sets
    monkeypatch.setattr(knowing_module.conformal, "sets", lambda *args: ~sets(*args))
    with refused(ExportError, "sets are not as its probabilities say", "Train again"):
        train_head(trained.features, tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()


# Jobs


def test_a_sample_without_a_temporary_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_card_path: Path
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'schema = 1\ncommand = "embed"\nsource = "{photos}"\noutput = "f.h5"\n'
        f'backbone = "{tiny_card_path}"\n'
    )
    found = read_job(job)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with refused(OutputError, "No temporary folder can be made", "No such file", "TMPDIR"):
        dry_run(found)


# Several labels per image


def test_labels_of_which_none_can_be_learned(tmp_path: Path, tiny_card: Card) -> None:
    rows = ["path,label,split"]
    for number, (label, split) in enumerate(
        [("a", "train"), ("a", "train"), ("|", "validation"), ("a", "test"), ("|", "test")]
    ):
        write_image(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{label},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    embed(tmp_path / "list.csv", tmp_path / "f.h5", backbone=tiny_card)
    with refused(TrainingDataError, "None of the 1 labels can be learned", "another must lack it"):
        train_head(tmp_path / "f.h5", tmp_path / "c.onnx", options=TrainOptions(multi_label=True))


# A cluster


def test_a_cluster_without_gpus() -> None:
    with refused(DeviceError, "No node of the Ray cluster has a GPU; it has 2", "--num-gpus"):
        needs_of([{"CPU": 4.0}, {"CPU": 2.0}], gpu=True, threads=None)


def test_nodes_that_are_not_as_the_drivers(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note").write_text("note")
    found = SentSource.of(open_source(photos), tmp_path / "note")
    with refused(ClusterError, "not 0.0.0", "Install the same version on all nodes"):
        replace(found, version="0.0.0").check_node()
    gone = replace(found, paths=(tmp_path / "gone",))
    with refused(SourceError, "does not see", str(tmp_path / "gone"), "storage that all nodes"):
        gone.check_reject(Reject(Stage.SOURCE, Reason.MISSING, "It is not there."))


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """A cluster of one node, on which workers end with an error as soon as they begin."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def put(self, job: object) -> object:
        return job

    def remote(self, **_: object) -> Callable[[type], Any]:
        actor = SimpleNamespace(start=SimpleNamespace(remote=lambda *_: object()))
        return lambda _: SimpleNamespace(remote=lambda: actor)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": {"CPU": 1.0}, "Alive": True}]

    def wait(self, refs: list[object], timeout: float) -> tuple[list[object], list[object]]:
        return (refs if self.error else [], [])

    def get(self, ref: object) -> object:
        assert self.error is not None
        raise self.error

    def kill(self, actor: object) -> None:
        pass


def crew(error: Exception | None) -> RayCrew[Any]:
    return RayCrew(FakeRay(error), object(), Needs())  # type: ignore[arg-type]


def test_workers_that_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayTaskError("Traceback ...\nModuleNotFoundError: No module named 'mine'")
    with refused(ClusterError, "A worker cannot begin", "No module named 'mine'", "same Python"):
        crew(error).begin()
    with refused(ClusterError, "die on the Ray cluster before they begin: out of memory", "memory"):
        crew(RayError("out of memory")).begin()
    monkeypatch.setattr(crew_module, "_MOST_ALONE_S", -1.0)
    with refused(ClusterError, "For 0 s no worker could be started", "room for 1", "ray status"):
        crew(None).begin()
