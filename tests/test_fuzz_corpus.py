"""What fuzzing has found is replayed each time: ``tests/fuzz.py`` keeps it in ``fuzz_corpus/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CORPUS = Path(__file__).with_name("fuzz_corpus")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and limits memory")

REPLAY = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import fuzz
bad = []
for path in sorted(Path({corpus!r}).glob("*.*")):
    said = fuzz.outcome({target!r}, path.read_bytes())
    if said:
        bad.append(path.name + ": " + said)
print("\\n".join(bad))
sys.exit(bool(bad))
"""


def replay(target: str, corpus: Path) -> subprocess.CompletedProcess[str]:
    folder = str(Path(__file__).parent)
    script = REPLAY.format(folder=folder, corpus=str(corpus), target=target)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("target", sorted(p.name for p in CORPUS.iterdir() if p.is_dir()))
def test_what_was_found_stays_mended(target: str) -> None:
    assert list((CORPUS / target).glob("*.*"))
    done = replay(target, CORPUS / target)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_short_run_works(tmp_path: Path) -> None:
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, str(script), "--minutes", "0.02", "--seed", "1", "--target", "manifests"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "executions: manifests" in done.stdout


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("os.abort()", "crash by signal 6"),
        ("1 / 0", "ZeroDivisionError"),
        ("bytearray(4 << 30)", "MemoryError"),
        ("time.sleep(60)", "hang of more than"),
    ],
)
def test_every_kind_of_finding_is_found(tmp_path: Path, work: str, words: str) -> None:
    script = (
        f"import os, sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fuzz;"
        f"fuzz.SECONDS = 1; fuzz.TARGETS['x'] = ('.x', lambda path: {work});"
        "print(fuzz.outcome('x', b'abc'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert words in done.stdout, done.stderr
