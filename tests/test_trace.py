"""The trace of a run, and what the progress says of it."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import tlpipe
from conftest import write_classes
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.cli.progress import bound_by, duration
from tlpipe.errors import OptionError, OutputError
from tlpipe.stages.engine import Span
from tlpipe.stages.trace import TraceFile


def test_a_run_leaves_a_trace(tmp_path: Path, tiny_card: Card) -> None:
    source, trace = write_classes(tmp_path / "photos", 10), tmp_path / "trace.json"
    (source / "red" / "bad.png").write_bytes(b"x")
    options = tlpipe.RunOptions(profile=trace, threads=2)
    result = tlpipe.embed(source, tmp_path / "f.h5", backbone=tiny_card, options=options)
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    count = {
        kind: sum(e["args"]["images"] for e in spans if e["name"] == kind)
        for kind in ("read", "decode", "infer")
    }
    assert count == {"read": result.count + 1, "decode": result.count + 1, "infer": result.count}
    assert any(event["name"] == "write" for event in spans)
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in spans} == named
    for event in spans:
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    for tid in named:  # what one thread does, it does one after the other
        own = sorted((e["ts"], e["dur"]) for e in spans if e["tid"] == tid)
        assert all(a + b <= c + 0.2 for (a, b), (c, _) in itertools.pairwise(own))


def test_a_run_that_fails_leaves_a_whole_trace(tmp_path: Path, tiny_card: Card) -> None:
    source, trace = write_classes(tmp_path / "photos", 10), tmp_path / "trace.json"

    def interrupt(progress: tlpipe.Progress) -> None:
        if progress.done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tlpipe.embed(
            source,
            tmp_path / "f.h5",
            backbone=tiny_card,
            options=tlpipe.RunOptions(profile=trace),
            progress=interrupt,
        )
    assert len(json.loads(trace.read_text())["traceEvents"]) > 9


def test_a_trace_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, tiny_card: Card
) -> None:
    source = write_classes(tmp_path / "photos", 3)
    options = tlpipe.RunOptions(profile=tmp_path / "none" / "trace.json")
    with pytest.raises(
        OutputError, match=r"The trace .* cannot be written: No such file"
    ) as caught:
        tlpipe.embed(source, tmp_path / "f.h5", backbone=tiny_card, options=options)
    assert "--profile" in caught.value.hint
    assert not (tmp_path / "f.h5").exists()


def test_only_a_trace_is_written_over(tmp_path: Path, tiny_card: Card) -> None:
    source = write_classes(tmp_path / "photos", 3)
    image = next(source.rglob("*.png")).rename(source / "odd.json")
    content = image.read_bytes()
    options = tlpipe.RunOptions(profile=image)
    with pytest.raises(OutputError, match="exists and is no trace") as caught:
        tlpipe.embed(source, tmp_path / "f.h5", backbone=tiny_card, options=options)
    assert "--profile" in caught.value.hint
    assert image.read_bytes() == content
    (tmp_path / "folder.json").mkdir()
    with (
        pytest.raises(OutputError, match="exists and is no trace"),
        TraceFile(tmp_path / "folder.json"),
    ):
        pass
    trace = tmp_path / "trace.json"
    trace.touch()
    for _ in range(2):
        with TraceFile(trace):
            pass
        assert json.loads(trace.read_text())["traceEvents"]


def test_spans_come_from_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"

    def tell(trace: TraceFile) -> None:
        for _ in range(200):
            trace([Span("read", 1.0, 2.0, threading.get_ident())])

    with TraceFile(path) as trace:
        threads = [threading.Thread(target=tell, args=(trace,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    trace([Span("read", 1.0, 2.0, 1)])  # too late: it is not told, and does no harm
    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 800


def test_what_a_run_is_bound_by() -> None:
    assert bound_by({}) == ""
    shares = {"read": 0.02, "decode": 0.1, "infer": 0.85, "wait": 0.03, "write": 0.02}
    assert bound_by(shares) == "bound by the network (85%)"
    assert bound_by({**shares, "read": 0.9}) == "bound by reading files (90%)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (125, "2 min"), (3600, "60 min"), (11_100, "3 h 05 min")],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_way_to_decode_is_refused() -> None:
    with pytest.raises(OptionError, match="The way to decode 'fast' is unknown"):
        tlpipe.RunOptions(decode="fast")  # type: ignore[arg-type]


def test_exact_decoding_is_another_fingerprint(tmp_path: Path, tiny_card: Card) -> None:
    """And a file goes on as it was begun, unless the user says how."""
    source, output = write_classes(tmp_path / "photos", 4), tmp_path / "f.h5"
    exact = tlpipe.RunOptions(decode="exact")
    tlpipe.embed(source, output, backbone=tiny_card, options=exact)
    assert tlpipe.inspect(output).facts["decoder"] == "pillow-exact-1"
    write_classes(tmp_path / "photos", 5)
    again = tlpipe.embed(source, output, backbone=tiny_card)
    assert (again.copied, again.embedded) == (12, 3)
    assert tlpipe.inspect(output).facts["decoder"] == "pillow-exact-1"
    other = tmp_path / "g.h5"
    tlpipe.embed(source, other, backbone=tiny_card)
    assert tlpipe.inspect(other).facts["decoder"] == "draft2-fir-1"
    with pytest.raises(tlpipe.TlpipeError, match="differ in: decoder: 'draft2-fir-1'"):
        tlpipe.embed(source, other, backbone=tiny_card, options=exact)


def test_on_the_command_line(tmp_path: Path, tiny_card_path: Path) -> None:
    source, trace = write_classes(tmp_path / "photos", 4), tmp_path / "t.json"
    command = ["embed", str(source), "-o", str(tmp_path / "f.h5"), "--backbone"]
    command += [str(tiny_card_path), "--profile", str(trace), "--decode", "exact"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_trace_is_no_image_and_no_feature_file(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must end in \.json"):
        tlpipe.RunOptions(profile=tmp_path / "features.h5")
