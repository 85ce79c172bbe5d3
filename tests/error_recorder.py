"""Writes down which places in the code made an error, and names those that no test reached.

``pytest --error-sites`` records; where the whole suite ran without a failure, a place that was not
reached is one (``make test``, so CI as well). ``make errors`` lists the places whatever the tests
say; ``make errors TESTS=tests/test_cli.py`` those in the modules that these tests get to.

A place is the file, the line and the column of the call that makes the error, as both Python's
frames and its parser give them: two calls in one line are two places. Each process writes into a
file of its own, at once; the folder's name stands in the environment, where the workers of
pytest-xdist and what a test starts find it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from error_sites import Site

FOLDER_VARIABLE = "TLPIPE_ERROR_SITES"
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pipeline" / "tlpipe"

# Places that the tests' own processes cannot reach, by the name that a failed check prints, with
# the reason. One that was reached after all, or is there no more, fails the check as well.
UNREACHED: dict[str, str] = {}


def start_recording(folder: Path) -> None:
    """Write down every error that this process, and what it forks, makes from now on."""
    from tlpipe.errors import TlpipeError

    plain = TlpipeError.__init__
    seen: set[tuple[int, str, int, int]] = set()

    def recording(self: TlpipeError, message: str, *, hint: str = "") -> None:
        plain(self, message, hint=hint)
        # Constructors of classes that have one of their own are passed over. (Not told by their
        # locals: to look at these keeps them alive, and what they hold open.)
        own = {getattr(vars(kind).get("__init__"), "__code__", None) for kind in type(self).__mro__}
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code in own:
            frame = frame.f_back
        if frame is None:
            return
        site = (os.getpid(), frame.f_code.co_filename, *_place(frame))
        if site in seen or not Path(site[1]).is_relative_to(PACKAGE):
            return
        seen.add(site)
        with (folder / f"{site[0]}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{Path(site[1]).relative_to(PACKAGE).as_posix()}\t{site[2]}\t{site[3]}\n")

    TlpipeError.__init__ = recording  # type: ignore[method-assign]


def record_if_asked() -> None:
    """Record where the environment names a folder for it."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        start_recording(Path(folder))


def _place(frame: FrameType) -> tuple[int, int]:
    """The line and the column at which the call starts that a frame is in."""
    positions = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    return positions[0] or 0, positions[2] or 0


def all_sites() -> tuple[Site, ...]:
    """The places, from the code."""
    if str(ROOT / "docs" / "hooks") not in sys.path:
        sys.path.insert(0, str(ROOT / "docs" / "hooks"))
    from error_sites import sites

    return sites()


def mistakes(folder: Path) -> list[str]:
    """What is wrong after a run of all tests, a line each: nothing, if it is well."""
    missed = _missed(folder)
    names = {site.name for site in missed}
    return [_line(site) for site in missed if site.name not in UNREACHED] + [
        f"UNREACHED in tests/error_recorder.py: {name!r} was reached, or is no place any more"
        for name in UNREACHED
        if name not in names
    ]


def _reached(folder: Path) -> set[tuple[str, ...]]:
    return {
        tuple(line.split("\t"))
        for path in folder.glob("*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    }


def _missed(folder: Path) -> list[Site]:
    reached = _reached(folder)
    return [
        site for site in all_sites() if (site.file, str(site.line), str(site.column)) not in reached
    ]


def _line(site: Site) -> str:
    return (
        f"pipeline/tlpipe/{site.file}:{site.line}: no test reaches it; it is called {site.name!r}"
    )


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--error-sites",
        action="store_true",
        help="record which places in the code make an error; fail if the whole suite misses one",
    )


def configure(config: pytest.Config) -> None:
    """In the process that the user started: make the folder, and record in it."""
    if config.getoption("error_sites") and FOLDER_VARIABLE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="tlpipe-error-sites-")
        config.add_cleanup(folder.cleanup)
        os.environ[FOLDER_VARIABLE] = folder.name
        config.add_cleanup(lambda: os.environ.pop(FOLDER_VARIABLE))
        record_if_asked()


def finish(session: pytest.Session) -> None:
    """After all tests: an error of its own, which stands in pytest's summary."""
    config = session.config
    if not config.getoption("error_sites") or hasattr(config, "workerinput"):
        return
    if not _is_whole(session):
        return
    if lines := mistakes(Path(os.environ[FOLDER_VARIABLE])):
        say = (
            "Places in the code that make an error which no test has seen. Write a test that brings"
            " it about, and asserts its class and its words; or delete what cannot come about."
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        config.hook.pytest_runtest_logreport(
            report=pytest.TestReport(
                nodeid="tests/error_recorder.py::every_error_is_reached",
                location=("tests/error_recorder.py", None, "every_error_is_reached"),
                keywords={},
                outcome="failed",
                longrepr="\n".join([say, *lines]),
                when="teardown",
            )
        )


def _is_whole(session: pytest.Session) -> bool:
    """Whether all tests ran, and well."""
    option = session.config.option
    chosen = (option.keyword, option.markexpr, option.deselect, option.ignore, option.ignore_glob)
    return (
        session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and not any(chosen)
        and not (option.collectonly or getattr(option, "lf", False))
        and session.exitstatus == pytest.ExitCode.OK
    )


def main(tests: list[str]) -> int:
    """Run all tests, or some; list the places that were not reached.

    Of some tests: those in modules of which they reached another one.
    """
    with tempfile.TemporaryDirectory(prefix="tlpipe-error-sites-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", *tests]
        subprocess.run(command, cwd=ROOT, check=False)
        lines = mistakes(Path(folder))
        if tests:
            seen = {file for file, *_ in _reached(Path(folder))}
            lines = [_line(site) for site in _missed(Path(folder)) if site.file in seen]
    print("\n".join(lines) if lines else "No place that makes an error was missed.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
