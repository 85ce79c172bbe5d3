"""Reduced precisions from images to classifier: calibration, agreement, what files keep of them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from conftest import Trained, aged, card_text, with_header, write_classes, write_image
from networks import Net
from tlpipe import (
    Card,
    Columns,
    RunOptions,
    classify,
    embed,
    evaluate,
    export_features,
    import_features,
    inspect,
    merge,
    repair,
    split,
    train_head,
    verify,
    verify_features,
)
from tlpipe.catalogue import read_card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    BackboneError,
    ClassifierError,
    DeviceError,
    FeatureFileError,
    OptionError,
    StaleFeaturesError,
)
from tlpipe.graph.digest import weights_digest
from tlpipe.precision import FLOORS, Calibration, read_agreement, read_calibration
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.session import properties_of
from tlpipe.stages.store import FeatureFile, FeatureHeader, feature_writer
from tlpipe.workflows import precision as workflow

INT8 = RunOptions(precision="int8")
FORCED = RunOptions(precision="int8", min_agreement=0)

DIM = 24


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A backbone of three convolutions, whose names and sizes are those of the tiny card."""
    folder = tmp_path_factory.mktemp("int8-backbone")
    net = Net()
    x = net.trunk(DIM)
    for step in range(2):
        x = net.add(
            "Conv", x, net.w(f"w{step}", DIM, DIM, 3, 3), net.w(f"b{step}", DIM), pads=[1] * 4
        )
        x = net.add("Relu", x)
    x = net.add("Flatten", net.add("GlobalAveragePool", x), out="features")
    net.fc(x, 5, DIM, out="logits")
    model = net.model("logits")
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 5])
    )
    onnx.save(model, folder / "net.onnx")
    path = folder / "net.toml"
    text = card_text(folder / "net.onnx", name='"net.int8"', dim=str(DIM))
    path.write_text(text, encoding="utf-8")
    return read_card(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aged(write_classes(tmp_path_factory.mktemp("images"), 20))


@pytest.fixture(scope="module")
def int8(images: Path, card: Card, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("int8")
    features, classifier = folder / "features.h5", folder / "classifier.onnx"
    embed(images, features, backbone=card, options=INT8)
    train_head(features, classifier)
    return Trained(features, classifier)


def header(path: Path) -> FeatureHeader:
    with FeatureFile(path) as file:
        return file.header


def vectors(path: Path) -> Any:
    with FeatureFile(path) as file:
        return file.rows(0, file.count, vectors=True).vectors


def test_the_file_says_how_it_was_made(int8: Trained, images: Path, card: Card) -> None:
    found = header(int8.features)
    assert found.precision == "int8/onnxruntime"
    calibration = read_calibration(found.calibration, "it")
    assert calibration is not None
    assert calibration.images == 60 * 128 // 328
    assert all(low <= high for low, high in calibration.ranges.values())
    agreement = read_agreement(found.agreement, "it")
    assert agreement is not None
    assert (agreement.held_back, agreement.floor) == (True, 0.99)
    assert agreement.images == 60 - calibration.images
    assert 0.99 <= agreement.p1 <= agreement.mean < 1
    plain = card.fingerprint(precision="int8/onnxruntime", decoder=found.decoder)
    assert found.fingerprint != plain  # the quantised network is part of it
    facts = inspect(int8.features).facts
    assert facts["agreement"]["mean"] == agreement.mean
    assert facts["calibration"]["tensors"] == len(calibration.ranges)
    assert verify_features(int8.features).whole


def test_the_agreement_is_that_of_the_vectors(
    int8: Trained, images: Path, card: Card, tmp_path: Path
) -> None:
    exact = tmp_path / "fp32.h5"
    result = embed(images, exact, backbone=card)
    assert result.agreement is None
    assert (result.precision, header(exact).calibration) == ("fp32", "")
    a, b = vectors(int8.features).astype("f8"), vectors(exact).astype("f8")
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    agreement = read_agreement(header(int8.features).agreement, "it")
    assert agreement is not None
    assert abs(cosines.mean() - agreement.mean) < 0.003


def test_fp32_files_are_as_they_were(trained: Trained) -> None:
    with h5py.File(trained.features) as file:
        assert not {"calibration", "agreement"} & set(file.attrs)
    assert "calibration" not in properties_of(trained.classifier)


def test_an_update_takes_the_ranges_over(
    int8: Trained, images: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, output = tmp_path / "more", tmp_path / "f.h5"
    shutil.copytree(images, more)
    shutil.copy(int8.features, output)
    aged(more)
    write_image(more / "red" / "new.png", 5, (255, 0, 0))  # brighter than all that calibrated it
    monkeypatch.setattr(workflow.Arithmetic, "_calibrate", None)
    monkeypatch.setattr(workflow.Arithmetic, "_agreement", None)
    result = embed(more, output, backbone=card, options=INT8)
    assert (result.embedded, result.kept) == (1, 60)
    before, after = header(int8.features), header(output)
    for name in ("fingerprint", "calibration", "agreement"):
        assert getattr(before, name) == getattr(after, name)
    assert result.agreement == read_agreement(before.agreement, "it")


def test_another_floor_holds_for_a_file_that_exists(
    int8: Trained, images: Path, card: Card, tmp_path: Path
) -> None:
    output = tmp_path / "f.h5"
    shutil.copy(int8.features, output)
    strict = replace(INT8, min_agreement=1.0)
    with pytest.raises(BackboneError, match="at least 1 is asked for"):
        embed(images, output, backbone=card, options=strict)
    assert output.read_bytes() == int8.features.read_bytes()


def test_an_interrupted_run_goes_on_with_its_ranges(
    images: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "f.h5"

    def stop(at: Any) -> None:
        if at.stage == "embed" and at.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(images, output, backbone=card, options=INT8, progress=stop)
    monkeypatch.setattr(workflow.Arithmetic, "_calibrate", None)
    result = embed(images, output, backbone=card, options=INT8)
    assert (result.kept, result.embedded) == (20, 40)
    assert verify_features(output).whole


def test_another_precision_is_refused(int8: Trained, images: Path, card: Card) -> None:
    with pytest.raises(StaleFeaturesError, match=r"precision: 'int8/onnxruntime' -> 'fp32'"):
        embed(images, int8.features, backbone=card)


def test_what_agrees_too_little_is_refused(images: Path, card: Card, tmp_path: Path) -> None:
    strict = RunOptions(precision="int8", min_agreement=1)
    output = tmp_path / "f.h5"
    with pytest.raises(BackboneError, match=r"only to a mean cosine of 0.9999.*37 images") as e:
        embed(images, output, backbone=card, options=strict)
    assert "at least 1 is asked for" in e.value.message
    assert "--min-agreement" in e.value.hint
    assert list(tmp_path.glob("*.h5")) == []
    result = embed(images, output, backbone=card, options=FORCED)
    assert result.agreement is not None
    assert result.agreement.floor == 0


def test_every_reduced_precision_has_a_floor() -> None:
    assert set(FLOORS) == {"bf16", "fp16", "int8"}


@pytest.mark.parametrize("least", [-0.1, 1.1, "x"])
def test_a_floor_is_a_cosine(least: Any) -> None:
    with pytest.raises(OptionError, match="it must be a cosine from 0 to 1"):
        RunOptions(min_agreement=least)


def test_one_image_calibrates_and_is_compared(card: Card, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", 1)
    write_image(tmp_path / "in" / "b.png", 1)  # the same content
    result = embed(tmp_path / "in", tmp_path / "f.h5", backbone=card, options=FORCED)
    assert result.agreement is not None
    assert (result.agreement.images, result.agreement.held_back) == (1, False)


def test_images_that_cannot_be_read_do_not_hinder(card: Card, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(40):
        write_image(folder / f"{number:02d}.png", number)
    for number in range(0, 40, 2):
        (folder / f"{number:02d}.png").write_bytes(b"")
    result = embed(folder, tmp_path / "f.h5", backbone=card, options=FORCED)
    assert (result.count, result.rejects.total()) == (20, 20)
    assert result.agreement is not None
    assert 0 < result.agreement.images < 20


def test_one_image_among_many_that_cannot_be_read(card: Card, tmp_path: Path) -> None:
    for at in range(5):
        folder = tmp_path / str(at)
        for number in range(5):
            path = folder / f"{number}.png"
            write_image(path, number)
            if number != at:
                path.write_bytes(b"")
        result = embed(folder, tmp_path / f"{at}.h5", backbone=card, options=FORCED)
        assert (result.count, result.rejects.total()) == (1, 4)
        assert result.agreement is not None
        assert (result.agreement.images, result.agreement.held_back) == (1, False)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_where_no_image_can_be_read_the_error_is_the_ordinary_one(
    card: Card, tmp_path: Path, precision: Any
) -> None:
    if precision == "bf16":
        needs_bf16()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with pytest.raises(FeatureFileError, match="1 empty"):
        embed(
            tmp_path / "in",
            tmp_path / "f.h5",
            backbone=card,
            options=RunOptions(precision=precision),
        )


def test_a_network_that_cannot_be_quantised(tmp_path: Path, images: Path) -> None:
    net = Net()
    pooled = net.add("GlobalAveragePool", net.take(3, 16, 16))
    net.fc(net.add("Flatten", pooled, out="features"), 5, 3, out="logits")
    onnx.save(net.model("logits"), tmp_path / "net.onnx")
    path = tmp_path / "net.toml"
    path.write_text(card_text(tmp_path / "net.onnx", name='"net.flat"', dim="3"), encoding="utf-8")
    with pytest.raises(BackboneError, match="cannot be quantised to int8"):
        embed(images, tmp_path / "f.h5", backbone=read_card(path), options=INT8)


def test_the_classifier_is_the_quantised_network(int8: Trained, images: Path) -> None:
    info = read_metadata(properties_of(int8.classifier), "it")
    assert info.precision == "int8/onnxruntime"
    assert info.calibration == header(int8.features).calibration
    model = onnx.load(int8.classifier)
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    kinds -= {onnx.TensorProto.FLOAT}  # mean and deviation of the preprocessing
    assert kinds == {onnx.TensorProto.INT8}
    result = evaluate(int8.classifier, images)
    assert result.metrics.accuracy > 0.9
    assert inspect(int8.classifier).facts["calibration"]["network"]


def test_training_and_serving_see_the_same_numbers(
    int8: Trained, images: Path, tmp_path: Path
) -> None:
    """Predictions are those of the head on the stored embeddings."""
    output = tmp_path / "p.jsonl"
    classify(int8.classifier, images, output, columns=Columns(top_k=3))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    model = onnx.load(int8.classifier)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    logits = vectors(int8.features) @ stored["tlpipe/head/weights"] + stored["tlpipe/head/bias"]
    assert [row["class"] for row in rows] == [
        ["blue", "green", "red"][k] for k in logits.argmax(axis=1)
    ]


def test_frozen_is_proved(int8: Trained) -> None:
    result = verify(int8.classifier)
    assert result.frozen
    assert result.quantised
    assert result.precision == "int8/onnxruntime"
    assert any(name.endswith("/int8/stored") for name in result.identical)


def altered_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("/int8/stored"))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def altered_scale(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.startswith("tlpipe/int8/"))
    tensor.CopyFrom(numpy_helper.from_array(np.float32(0.5), tensor.name))


@pytest.mark.parametrize("change", [altered_weight, altered_scale])
def test_tampering_is_found(int8: Trained, tmp_path: Path, change: Any) -> None:
    model = onnx.load(int8.classifier)
    change(model)
    digest = weights_digest(model)
    for entry in model.metadata_props:
        if entry.key == "backbone_digest":
            entry.value = digest
    path = tmp_path / "c.onnx"
    onnx.save(model, path)
    assert not verify(path).frozen


def test_a_stated_digest_of_another_network_is_found(int8: Trained, tmp_path: Path) -> None:
    model = onnx.load(int8.classifier)
    for entry in model.metadata_props:
        if entry.key == "calibration":
            entry.value = entry.value.replace('"network":"', '"network":"0')[:-1] + "}"
            entry.value = entry.value
    path = tmp_path / "c.onnx"
    onnx.save(model, path)
    with pytest.raises(ClassifierError, match="damaged"):
        verify(path)


def test_altered_ranges_are_not_used(
    int8: Trained, images: Path, card: Card, tmp_path: Path
) -> None:
    output = tmp_path / "f.h5"
    shutil.copy(int8.features, output)
    calibration = read_calibration(header(output).calibration, "it")
    assert calibration is not None
    name = next(iter(calibration.ranges))
    ranges = calibration.ranges | {name: (-1.0, 1.0)}
    with_header(output, calibration=replace(calibration, ranges=ranges).to_json())
    with pytest.raises(BackboneError, match="Quantised with the ranges that are stored"):
        train_head(output, tmp_path / "c.onnx")


@pytest.mark.parametrize("text", ["x", "{}", '{"ranges": {"a": 1}}', "[" * 9999])
def test_a_damaged_calibration_is_said(int8: Trained, tmp_path: Path, text: str) -> None:
    with pytest.raises(FeatureFileError, match="calibration in it is damaged"):
        read_calibration(text, "it")
    output = tmp_path / "f.h5"
    shutil.copy(int8.features, output)
    with_header(output, calibration=text)
    with pytest.raises(FeatureFileError, match="damaged"):
        train_head(output, tmp_path / "c.onnx")
    with pytest.raises(FeatureFileError, match="agreement in it is damaged"):
        read_agreement(text, "it")


def test_int8_without_a_calibration_is_damaged(int8: Trained, tmp_path: Path) -> None:
    output = tmp_path / "f.h5"
    shutil.copy(int8.features, output)
    with_header(output, calibration="")
    with pytest.raises(FeatureFileError, match="it has no calibration"):
        train_head(output, tmp_path / "c.onnx")


def test_a_calibration_of_many_tensors_can_be_stored(tmp_path: Path, card: Card) -> None:
    """HDF5 keeps attributes of more than 64 KB elsewhere."""
    ranges = {f"a_long_name/of_a/tensor/{i:05d}" * 3: (-float(i) / 7, i / 3) for i in range(2000)}
    calibration = Calibration("min-max", 128, "0" * 64, ranges)
    text = calibration.to_json()
    assert len(text) > 200_000
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=("v110", "v110")):
        pass
    from feature_files import header_of, some_rows

    head = replace(header_of(card), precision="int8/onnxruntime", calibration=text)
    head = replace(head, fingerprint=head.expected_fingerprint("it"))
    with feature_writer(path, head, 8) as writer:
        writer.add(some_rows(0, 10))
    assert header(path) == head
    assert read_calibration(header(path).calibration, "it") == calibration
    assert verify_features(path).whole


def test_other_commands_keep_what_is_known(int8: Trained, images: Path, tmp_path: Path) -> None:
    before = header(int8.features)

    def same(path: Path) -> None:
        after = header(path)
        assert (after.calibration, after.agreement) == (before.calibration, before.agreement)
        assert after.fingerprint == before.fingerprint
        assert verify_features(path).whole

    for suffix in (".npz", ".parquet"):
        export_features(int8.features, tmp_path / f"t{suffix}")
        import_features(tmp_path / f"t{suffix}", tmp_path / f"again{suffix}.h5")
        same(tmp_path / f"again{suffix}.h5")
    split(int8.features, tmp_path / "split.h5")
    same(tmp_path / "split.h5")
    merge([int8.features, tmp_path / "split.h5"], tmp_path / "merged.h5")
    same(tmp_path / "merged.h5")
    repair(int8.features, tmp_path / "mended.h5")
    same(tmp_path / "mended.h5")


def test_the_worst_agreement_is_that_of_a_merged_file(int8: Trained, tmp_path: Path) -> None:
    other = tmp_path / "f.h5"
    shutil.copy(int8.features, other)
    worse = replace(read_agreement(header(other).agreement, "it"), mean=0.5).to_json()  # type: ignore[type-var]
    with_header(other, agreement=worse)
    merge([int8.features, other], tmp_path / "merged.h5")
    assert header(tmp_path / "merged.h5").agreement == worse


def test_files_with_other_ranges_are_not_merged(
    int8: Trained, card: Card, images: Path, tmp_path: Path
) -> None:
    embed(images / "red", tmp_path / "red.h5", backbone=card, options=FORCED)
    with pytest.raises(StaleFeaturesError, match="differ in: calibration: other ranges"):
        merge([int8.features, tmp_path / "red.h5"], tmp_path / "merged.h5")


def test_a_classifier_is_run_in_its_own_arithmetic(
    int8: Trained, trained: Trained, images: Path, photos: Path
) -> None:
    for precision in ("fp32", "bf16"):
        with pytest.raises(ClassifierError, match="is an int8 classifier"):
            evaluate(int8.classifier, images, options=RunOptions(precision=precision))  # type: ignore[arg-type]
    with pytest.raises(ClassifierError, match="is an fp32 classifier"):
        evaluate(trained.classifier, photos, options=INT8)
    own = evaluate(int8.classifier, images)
    assert own.metrics == evaluate(int8.classifier, images, options=INT8).metrics


def needs_bf16() -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    import openvino

    from tlpipe.execution import Execution
    from tlpipe.stages.session import open_network
    from tlpipe.stages.session.openvino import _check_bf16

    try:
        _check_bf16(openvino.Core())
    except DeviceError as exc:
        pytest.skip(exc.message)
    assert Execution
    assert open_network


def test_bf16_from_images_to_predictions(card: Card, images: Path, tmp_path: Path) -> None:
    needs_bf16()
    features, classifier = tmp_path / "f.h5", tmp_path / "c.onnx"
    bf16 = RunOptions(precision="bf16")
    result = embed(images, features, backbone=card, options=bf16)
    assert (result.provider, result.precision) == ("OpenVINO", "bf16/openvino")
    assert result.agreement is not None
    assert (result.agreement.images, result.agreement.held_back) == (60, True)
    assert 0.998 < result.agreement.mean < 1
    assert embed(images, features, backbone=card, options=bf16).unchanged
    trained = train_head(features, classifier)
    assert any("--precision bf16" in notice for notice in trained.notices)
    found = verify(classifier)
    assert (found.frozen, found.quantised, found.precision) == (True, False, "bf16/openvino")
    for options in (RunOptions(), bf16, RunOptions(runtime="openvino")):
        assert evaluate(classifier, images, options=options).metrics.accuracy > 0.9


def test_int8_by_openvino(card: Card, int8: Trained, images: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    options = RunOptions(precision="int8", runtime="openvino")
    with pytest.raises(StaleFeaturesError, match="'int8/onnxruntime' -> 'int8/openvino'"):
        embed(images, int8.features, backbone=card, options=options)
    assert evaluate(int8.classifier, images, options=options).metrics.accuracy > 0.9


def test_without_openvino_nothing_is_begun(
    card: Card, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlpipe.stages.session import choose

    monkeypatch.setattr(choose, "_is_installed", lambda package: False)
    with pytest.raises(DeviceError, match="is not installed"):
        embed(images, tmp_path / "f.h5", backbone=card, options=RunOptions(precision="bf16"))
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(card: Card, images: Path, tmp_path: Path) -> None:
    where = str(Path(card.weights.file).with_suffix(".toml"))
    features, classifier = str(tmp_path / "f.h5"), str(tmp_path / "c.onnx")
    line = ["embed", str(images), "-o", features, "--backbone", where, "--precision", "int8"]
    done = CliRunner().invoke(cli, [*line, "--threads", "1", "--min-agreement", "0.5"])
    assert done.exit_code == 0, done.output
    assert (
        "At int8/onnxruntime the embeddings agree with those at fp32 to a mean cosine"
        in done.output
    )
    assert "37 images of the source" in done.output
    done = CliRunner().invoke(cli, ["train-head", features, "-o", classifier])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli, ["verify", classifier])
    assert "quantised again with the ranges it states" in done.output
    assert "Frozen" in done.output
    done = CliRunner().invoke(cli, ["evaluate", classifier, str(images), "--precision", "bf16"])
    assert done.exit_code == 1
    done = CliRunner().invoke(cli, ["embed", str(images), "-o", features, "--min-agreement", "2"])
    assert done.exit_code == 2
