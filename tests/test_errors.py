from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import error_recorder
from tlpipe import errors
from tlpipe.errors import OutputError, TlpipeError, UnknownBackboneError
from tlpipe.types import Reason

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, TlpipeError) and value is not TlpipeError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_error_has_a_standard_base_and_stands_in_the_tree(kind: type[TlpipeError]) -> None:
    standard = [base for base in kind.__bases__ if not issubclass(base, TlpipeError)]
    assert len(standard) == 1
    line = rf"── {kind.__name__} +\({standard[0].__name__}\) +\w"
    assert re.search(line, str(errors.__doc__))


def test_message_and_hint() -> None:
    error = UnknownBackboneError("No such backbone.", hint="List them.")
    assert str(error) == "No such backbone. List them."
    assert error.message == "No such backbone."
    assert error.exit_code == 1
    assert str(OutputError("Disk full.")) == "Disk full."


def test_the_page_names_what_an_error_says() -> None:
    sites = error_recorder.all_sites()  # where the documentation's hooks become importable
    hook = importlib.import_module("reference")
    source = (error_recorder.ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    page = hook.on_page_markdown(source)
    assert "<!-- generated" not in page
    for site in sites:
        assert site.message.replace("|", "\\|") in page
    assert "works along the batch" in page  # a reason that stands inside another message
    for kind in CLASSES:
        assert f"### {kind.__name__}\n" in page
    for reason in Reason:
        assert f"| `{reason.value}` |" in page
    assert "`models check`, `run`, `train`." in page  # the commands that end with exit code 3


def record(folder: Path, sites: list[error_recorder.Site]) -> None:
    lines = [f"{site.file}\t{site.line}\t{site.column}\n" for site in sites]
    (folder / "1.txt").write_text("".join(lines), encoding="utf-8")


def test_a_place_that_no_test_reached_is_named(tmp_path: Path) -> None:
    known = error_recorder.UNREACHED
    *reached, missed = [site for site in error_recorder.all_sites() if site.name not in known]
    record(tmp_path, [*reached, missed])
    assert error_recorder.mistakes(tmp_path) == []
    record(tmp_path, reached)
    (line,) = error_recorder.mistakes(tmp_path)
    assert f"{missed.file}:{missed.line}" in line
    assert missed.message in line


def test_the_list_of_places_out_of_reach_cannot_grow_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = error_recorder.all_sites()
    reached = [site for site in sites if site.name not in error_recorder.UNREACHED]
    record(tmp_path, reached)
    for name in (reached[0].name, "files.py gone: OutputError: No such words."):
        monkeypatch.setitem(error_recorder.UNREACHED, name, "a reason")
        (line,) = error_recorder.mistakes(tmp_path)
        assert name in line
        monkeypatch.delitem(error_recorder.UNREACHED, name)


def test_a_place_is_the_call_even_of_two_in_one_line(tmp_path: Path) -> None:
    """Recorded in a process of its own, by the code of the package itself."""
    code = (
        "import sys; from pathlib import Path; import error_recorder\n"
        "folder = Path(sys.argv[1]); error_recorder.start_recording(folder)\n"
        "from tlpipe import read_job\n"
        "from tlpipe.errors import JobError, OutputError\n"
        "from tlpipe.files import check_output\n"
        "for call in (lambda: check_output(folder, overwrite=False), lambda: read_job('gone')):\n"
        "    try: call()\n"
        "    except (JobError, OutputError): pass\n"
    )
    command = [sys.executable, "-c", code, tmp_path]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)
    (written,) = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    places = {f"{site.file}\t{site.line}\t{site.column}" for site in error_recorder.all_sites()}
    assert {line.split("\t")[0] for line in written.splitlines()} == {
        "files.py",
        "workflows/jobs/reading.py",
    }
    assert set(written.splitlines()) <= places


_CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
import error_recorder
sys.path.insert(0, {docs!r})
from error_sites import Site
missed = Site("files.py", "check", 1, 0, "OutputError", "The disk is full.", "Make room.")
error_recorder.all_sites = lambda: [missed]
def pytest_addoption(parser): error_recorder.add_option(parser)
def pytest_configure(config): error_recorder.configure(config)
def pytest_sessionfinish(session): error_recorder.finish(session)
"""


@pytest.mark.parametrize(
    ("options", "code", "last"),
    [
        (["--error-sites"], 1, "1 passed, 1 error in"),
        (["--error-sites", "-n", "1"], 1, "1 passed, 1 error in"),
        (["--error-sites", "-k", "works"], 0, "1 passed in"),
        (["--error-sites", "test_it.py"], 0, "1 passed in"),
        ([], 0, "1 passed in"),
    ],
    ids=["whole", "xdist", "chosen", "one file", "not asked for"],
)
def test_a_whole_run_that_misses_a_place_fails_in_pytests_own_summary(
    tmp_path: Path, options: list[str], code: int, last: str
) -> None:
    root = error_recorder.ROOT
    where = {"tests": str(root / "tests"), "docs": str(root / "docs" / "hooks")}
    (tmp_path / "conftest.py").write_text(_CONFTEST.format(**where), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text("def test_works(): pass\n", encoding="utf-8")
    plugins = ["-p", "no:cacheprovider", *(["-p", "xdist"] if "-n" in options else [])]
    command = [sys.executable, "-m", "pytest", *plugins, *options]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds
    environment.pop(error_recorder.FOLDER_VARIABLE, None)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    assert last in done.stdout.splitlines()[-1]
    assert ("pipeline/tlpipe/files.py:1: no test reaches it" in done.stdout) == bool(code)
