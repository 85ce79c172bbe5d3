"""Mutation fuzzing: files are damaged at random, and tlpipe must refuse or read them.

``python tests/fuzz.py --minutes 10 [--target features|images|manifests] [--seed N]``

Each case runs in a child process of its own, with limits on memory and time, so that crashes,
hangs, foreign exceptions and memory that blows up are found and told apart. What is found is made
smaller and put into ``tests/fuzz_corpus/<target>/``, which ``test_fuzz_corpus.py`` replays.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import tlpipe
from tlpipe.errors import TlpipeError
from tlpipe.stages.decode import decode, quiet_pillow
from tlpipe.stages.store import FeatureFile, inspect_features, read_features, read_rejects
from tlpipe.types import FileStat

CORPUS = Path(__file__).with_name("fuzz_corpus")
ROOM = 2 << 30
"""Bytes of address space that a case may take beyond what is in use."""

SECONDS = 10
"""That a case may take."""

BATCH = 40
"""Cases per child: a fork costs more than a case."""

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the cases lie: tlpipe pushes its files to the disk, and that takes time."""

INTERESTING = [0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]


def check_features(path: Path) -> None:
    for way in (read_features, inspect_features, read_rejects, rows, tlpipe.verify_features):
        with contextlib.suppress(TlpipeError):
            way(path)
    with contextlib.suppress(TlpipeError):
        tlpipe.repair(path, path.with_suffix(".mended.h5"), overwrite=True)


def rows(path: Path) -> None:
    with FeatureFile(path) as file:
        file.rows(0, min(file.count, 500), vectors=True)


def check_image(path: Path) -> None:
    with quiet_pillow():
        decode(path.read_bytes(), FileStat(), lambda size: 2 if min(size) > 16 else 1)


def check_manifest(path: Path) -> None:
    with contextlib.suppress(TlpipeError):
        source = tlpipe.source(path)
        _ = source.survey
        for block in source.scan(stats=True):
            len(block)


TARGETS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "features": (".h5", check_features),
    "images": (".img", check_image),
    "manifests": (".csv", check_manifest),
}


def feature_seeds(folder: Path) -> list[bytes]:
    import onnx

    from conftest import card_text, tiny_network
    from feature_files import write_features
    from tlpipe.catalogue import read_card

    onnx.save(tiny_network(), folder / "tiny.onnx")
    (folder / "tiny.toml").write_text(card_text(folder / "tiny.onnx"), encoding="utf-8")
    card = read_card(folder / "tiny.toml")
    found = [(Path(__file__).parent / "data" / "features-v1.h5").read_bytes()]
    for count in (3, 300):
        found.append(write_features(folder / f"{count}.h5", card, count).read_bytes())
    return found


def image_seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (19, 23), np.uint8))
    colour = Image.fromarray(rng.integers(0, 255, (19, 23, 3), np.uint8))
    alpha = colour.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(rng.integers(0, 65535, (19, 23)).astype(np.uint16))
    found = []
    for image in (grey, colour, alpha, deep, colour.convert("P"), colour.convert("CMYK")):
        for name in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "JPEG2000", "ICO",
                     "AVIF", "PCX", "SGI", "DDS", "ICNS", "IM", "MSP", "XBM"):  # fmt: skip
            for options in ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}):
                if options and name != "TIFF":
                    continue
                stream = io.BytesIO()
                with contextlib.suppress(Exception):
                    exif = Image.Exif()
                    exif[274] = 6
                    image.save(stream, name, exif=exif, **options)
                    found.append(stream.getvalue())
                    continue
                stream = io.BytesIO()
                with contextlib.suppress(Exception):
                    image.save(stream, name, **options)
                    found.append(stream.getvalue())
    return found


def manifest_seeds(folder: Path) -> list[bytes]:
    return [
        b"path,label,split\na.png,cat,train\nb/c.png,dog,test\n",
        "path\tlabel\n\"a\tb.png\"\tmöwe\n'c'.png\t\n".encode(),
        b"\xef\xbb\xbfpath;label\r\na.png;1\r\n",
        b'path,label\n"a\nb.png","x ""y"" z"\n../c.png,\n/etc/passwd,q\n',
        "path,label\na.png,b\n".encode("utf-16"),
    ]


SEEDS = {"features": feature_seeds, "images": image_seeds, "manifests": manifest_seeds}


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with one to a few changes."""
    raw = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5, 20])):
        at = rng.randrange(len(raw)) if raw else 0
        kind = rng.randrange(8)
        if kind <= 1 and raw:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and raw:
            raw[at] = rng.randrange(256)
        elif kind == 3:
            width = rng.choice([1, 2, 4, 8])
            value = rng.choice(INTERESTING) & ((1 << 8 * width) - 1)
            raw[at : at + width] = value.to_bytes(width, rng.choice(["little", "big"]))
        elif kind == 4:
            length = rng.choice([1, 4, 16, 64, 512, 4096])
            raw[at : at + length] = bytes(len(raw[at : at + length]))
        elif kind == 5:
            other = rng.choice(seeds)
            start, length = rng.randrange(len(other)), rng.choice([4, 16, 64, 512])
            piece = other[start : start + length]
            raw[at : at + (len(piece) if rng.random() < 0.7 else 0)] = piece
        elif kind == 6 and rng.random() < 0.3:
            del raw[at:]
        elif kind == 7:
            del raw[at : at + rng.choice([1, 2, 8, 100])]
    return bytes(raw)


def outcome(target: str, raw: bytes) -> str:
    """What becomes of a file in a child of its own: empty, or what is wrong."""
    return outcomes(target, [raw])[1]


def outcomes(target: str, cases: list[bytes]) -> tuple[int, str]:
    """Run cases in one child; the number of the first that goes wrong and how, or (-1, "")."""
    suffix, check = TARGETS[target]
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        at, said = Path(name) / "at", Path(name) / "said"
        child = os.fork()
        if child == 0:
            _run_child(check, cases, Path(name) / f"case{suffix}", at, said)
        seen, since = "", time.monotonic()
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            now = at.read_text() if at.exists() else ""
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > SECONDS:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return int(seen or 0), f"hang of more than {SECONDS} s"
            time.sleep(0.002)
        number = int(at.read_text() or 0) if at.exists() else 0
        if os.WIFSIGNALED(status):
            return number, f"crash by signal {os.WTERMSIG(status)}"
        if os.WEXITSTATUS(status):
            words = said.read_text(errors="replace") if said.exists() else "it ended early"
            return number, words
        return -1, ""


def _run_child(
    check: Callable[[Path], None], cases: list[bytes], path: Path, at: Path, said: Path
) -> None:
    """Never returns."""
    code = 1
    try:
        faulthandler.disable()
        sys.stderr = io.StringIO()
        with Path("/proc/self/statm").open() as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, raw in enumerate(cases):
            at.write_text(str(number))
            path.write_bytes(raw)
            check(path)
        code = 0
    except BaseException:
        with contextlib.suppress(BaseException):
            said.write_text("".join(traceback.format_exc()[-3000:]))
    finally:
        os._exit(code)


def smaller(target: str, raw: bytes, kind: str, seconds: float = 30) -> bytes:
    """A smaller file with the same outcome, as far as a short search finds one."""
    end = time.monotonic() + seconds
    size = len(raw) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(raw) and time.monotonic() < end:
            less = raw[:at] + raw[at + size :]
            if kind_of(outcome(target, less)) == kind:
                raw = less
            else:
                at += size
        size //= 4
    return raw


def kind_of(said: str) -> str:
    """What tells one finding from another: its last line, without numbers and names."""
    line = said.strip().splitlines()[-1] if said else ""
    return line.split(":")[0][:80]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    names = list(TARGETS) if options.target == "all" else [options.target]
    with tempfile.TemporaryDirectory() as name:
        seeds = {target: SEEDS[target](Path(name)) for target in names}
    counts: Counter[str] = Counter()
    found: dict[tuple[str, str], int] = {}
    end = time.monotonic() + options.minutes * 60
    print(f"seed {options.seed}; " + ", ".join(f"{t}: {len(s)} seeds" for t, s in seeds.items()))
    while time.monotonic() < end:
        for target in names:
            cases = [mutated(rng, seeds[target]) for _ in range(BATCH)]
            while cases:
                number, said = outcomes(target, cases)
                counts[target] += len(cases) if number < 0 else number + 1
                if number < 0:
                    break
                _keep(target, cases[number], said, found)
                cases = cases[number + 1 :]
    print("executions: " + ", ".join(f"{target} {n:,}" for target, n in counts.items()))
    for (target, kind), times in found.items():
        print(f"{target}: {times} times {kind}")
    return bool(found)


def _keep(target: str, raw: bytes, said: str, found: dict[tuple[str, str], int]) -> None:
    kind = kind_of(said)
    found[target, kind] = found.get((target, kind), 0) + 1
    if found[target, kind] > 3:
        return
    print(f"{target}: {said[-1500:]}", flush=True)
    again = kind_of(outcome(target, raw))
    if again == kind and not kind.startswith("hang"):
        raw = smaller(target, raw, kind)
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256(raw).hexdigest()[:16] + TARGETS[target][0])
    path.write_bytes(raw)
    print(f"kept as {path.name}, {len(raw)} bytes, {'again so' if again == kind else 'by chance'}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
