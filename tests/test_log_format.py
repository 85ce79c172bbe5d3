"""``--log-format json``: every line on standard error is one JSON object, whoever writes it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from conftest import Trained, write_classes
from tlpipe.cli import progress as progress_module
from tlpipe.cli.log import LOG_FORMAT_VARIABLE, emit, is_json, json_lines
from tlpipe.cli.main import cli
from tlpipe.cli.signals import _terminated
from tlpipe.types import Progress


def run(*arguments: object, **environment: str) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env=environment).invoke(
        cli, ["--log-format", "json", *words], prog_name="tlpipe"
    )


def events(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        assert {"time", "level", "event"} <= set(event)
        assert event["level"] in ("info", "warning", "error")
    return found


def test_a_whole_run_is_events(tmp_path: Path, tiny_card_path: Path) -> None:
    write_classes(tmp_path / "photos", 4)
    (tmp_path / "photos" / "red" / "broken.png").touch()
    result = run(
        "embed", tmp_path / "photos", "-o", tmp_path / "f.h5", "--backbone", tiny_card_path
    )
    assert (result.exit_code, result.stdout) == (0, "")
    survey, progress, done, rejects, end = events(result.stderr)
    assert survey["event"] == "survey"
    assert survey["classes"] == {"blue": 4, "green": 4, "red": 5}
    assert survey["splits"] == {"none": 13}
    assert (progress["event"], progress["stage"]) == ("progress", "embed")
    assert (progress["done"], progress["total"], progress["rejects"]) == (13, 13, 1)
    assert set(progress) >= {"rate", "seconds_left", "busy", "unit"}
    assert (done["event"], done["path"], done["count"]) == ("result", str(tmp_path / "f.h5"), 12)
    assert done["provider"] == "CPUExecutionProvider"
    assert (rejects["event"], rejects["rejects"]) == ("rejects", {"empty": 1})
    assert (end["event"], end["exit_code"]) == ("exit", 0)


def test_results_stay_on_standard_output(trained: Trained) -> None:
    result = run("inspect", trained.classifier, "--json")
    assert json.loads(result.stdout)["kind"]
    assert [event["event"] for event in events(result.stderr)] == ["exit"]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["embed", "nowhere", "-o", "f.h5"], 1, "'nowhere' does not exist", "Give a folder"),
        (["embed", "nowhere"], 2, "Missing option '-o' / '--output'", "'tlpipe embed --help'"),
        (["nonsense"], 2, "No such command 'nonsense'", "'tlpipe --help'"),
        (["--nonsense"], 2, "No such option '--nonsense'", "'tlpipe --help'"),
    ],
)
def test_errors_are_events(arguments: list[str], code: int, message: str, hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    error, end = events(result.stderr)
    assert (error["event"], error["level"], error["exit_code"]) == ("error", "error", code)
    assert message in error["message"]
    assert hint in error["hint"]
    assert end["exit_code"] == code
    assert not is_json()


def test_the_environment_can_ask_for_it() -> None:
    wanted = CliRunner(env={LOG_FORMAT_VARIABLE: "json"})
    error, _ = events(wanted.invoke(cli, ["embed", "nowhere", "-o", "f.h5"]).stderr)
    assert error["event"] == "error"
    text = wanted.invoke(cli, ["--log-format", "text", "embed", "nowhere", "-o", "f.h5"])
    assert text.stderr.startswith("Error: The source 'nowhere'")
    wrong = CliRunner(env={LOG_FORMAT_VARIABLE: "xml"}).invoke(cli, ["doctor"])
    assert wrong.exit_code == 2
    assert "'xml' is not one of 'text', 'json'" in wrong.stderr


def test_a_traceback_is_one_event() -> None:
    result = run("--debug", "embed", "nowhere", "-o", "f.h5")
    error, end = events(result.stderr)
    assert error["traceback"].startswith("Traceback")
    assert (error["exit_code"], end["exit_code"]) == (1, 1)


def test_a_defect_is_an_event_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("defect")
    def defect() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setitem(cli.commands, "defect", defect)
    error, end = events(run("defect").stderr)
    assert error["message"] == "ZeroDivisionError: a defect"
    assert end["exit_code"] == 1


@pytest.mark.filterwarnings("default")
def test_what_others_write_is_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising() -> None:
        raise ValueError("in a thread")

    @click.command("noise")
    def noise() -> None:
        logging.getLogger("tlpipe.some").warning("a warning of %s", "ours")
        logging.getLogger("other").error("two\nlines")
        warnings.warn("a Python warning", UserWarning, stacklevel=1)
        print("half a line", file=sys.stderr, end="")
        click.echo(" and the rest\nanother", err=True)
        thread = threading.Thread(target=raising)
        thread.start()
        thread.join()
        print("no end", file=sys.stderr, end="")

    monkeypatch.setitem(cli.commands, "noise", noise)
    found = events(run("noise").stderr)
    ours, other, python, half, another, thread, no_end, _ = found
    assert (ours["event"], ours["logger"], ours["level"]) == ("log", "tlpipe.some", "warning")
    assert ours["message"] == "a warning of ours"
    assert (other["message"], other["level"]) == ("two\nlines", "error")
    assert "a Python warning" in python["message"]
    assert half["message"] == "half a line and the rest"
    assert another["message"] == "another"
    assert "in a thread" in thread["traceback"]
    assert no_end["message"] == "no end"


def test_progress_comes_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moment = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: moment[0])
    with json_lines(), progress_module.progress() as report:
        for done in range(41):
            moment[0] = float(done)
            report(Progress("classify", done, 40, 0, {"infer": 0.9}))
        report(Progress("train-head", 1, None, 0))
        moment[0] = 60.0
        report(Progress("train-head", 7, None, 0))
    *found, _ = events(capsys.readouterr().err)
    assert [(e["stage"], e["done"]) for e in found] == [
        *(("classify", done) for done in (10, 20, 30, 40)),
        ("train-head", 7),
    ]
    assert (found[0]["rate"], found[0]["seconds_left"]) == (1.0, 30.0)
    assert (found[-1]["unit"], found[-1]["total"]) == ("settings", None)


def test_names_of_any_bytes_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    with json_lines():
        emit("result", "a\x1b[2J\n\udcff", path=Path("x\udcfe"), counts={1: Path("y")})
    text = capsys.readouterr().err
    found, _ = events(text)
    assert text.isascii()
    assert (found["path"], found["counts"]) == ("x\udcfe", {"1": "y"})


def test_nothing_is_written_as_json_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    emit("result", "nothing")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_native_lines_and_signals_are_events(number: signal.Signals) -> None:
    """A library in C writes to file 2 itself; then a signal ends the run."""
    code = """
import os, time, click
from tlpipe.cli.main import cli, main

@click.command("noise")
def noise():
    os.write(2, b"[W:native] written in C\\n\\xff\\n")
    print("ready", flush=True)
    try:
        time.sleep(60)
    except BaseException as exc:
        print("stopping", flush=True)
        time.sleep(0.3)
        exc.add_note("12 rows are kept")
        raise

cli.add_command(noise)
main()
"""
    command = [sys.executable, "-c", code, "--log-format", "json", "noise"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(number)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM if number == signal.SIGTERM else signal.SIGWINCH)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    native, odd, stopped, end = events(errors)
    assert native["message"] == "[W:native] written in C"
    assert odd["message"] == "\\xff"
    assert (stopped["event"], stopped["exit_code"]) == ("interrupted", 128 + number)
    assert stopped["notes"] == ["12 rows are kept"]
    assert end["exit_code"] == 128 + number


def test_text_says_what_stopped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("stopped")
    def stopped() -> None:
        _terminated(signal.SIGTERM, None)

    monkeypatch.setattr(sys.modules["tlpipe.cli.signals"], "_stopping", False)
    monkeypatch.setitem(cli.commands, "stopped", stopped)
    result = CliRunner().invoke(cli, ["stopped"])
    assert result.exit_code == 143
    assert result.stderr.startswith("Stopped by SIGTERM. Outputs that were not finished")
