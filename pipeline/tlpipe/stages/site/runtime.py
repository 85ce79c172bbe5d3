"""The files of the package onnxruntime-web that a site needs.

Two of its hundred: ONNX Runtime for WebAssembly on the CPU, and the module that loads it.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from tlpipe.errors import OptionError
from tlpipe.files import is_dir, is_file

MODULE = "ort.wasm.bundle.min.mjs"
WASM = "ort-wasm-simd-threaded.wasm"

_PACKAGE = "onnxruntime-web"
_ABOUT = "package.json"
_WANTED = {_ABOUT: 1 << 20, f"dist/{MODULE}": 1 << 24, f"dist/{WASM}": 1 << 27}
"""Files of the package, and the most bytes of each."""
_MOST = 1 << 30  # bytes of the archive, unpacked


@dataclass(frozen=True)
class Published:
    """The package as it is published, at one version.

    Attributes
    ----------
    version : str
    url : str
    size_bytes : int
    sha256 : str
        64 hexadecimal digits.
    """

    version: str
    url: str
    size_bytes: int
    sha256: str


# The file with this SHA-256 has the SHA-512 that the registry of npm states ("integrity"):
# q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==
PUBLISHED = Published(
    version="1.30.0",
    url="https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz",
    size_bytes=33_106_585,
    sha256="d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
)


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime for browsers.

    Attributes
    ----------
    version : str
    files : mapping of str to bytes
        By name.
    """

    version: str
    files: Mapping[str, bytes]


def read_runtime(path: Path) -> Runtime:
    """Take what a site needs out of the package onnxruntime-web.

    Parameters
    ----------
    path : pathlib.Path
        The archive (.tgz) that npm's registry gives, or a folder with what is in it. Nothing is
        unpacked to disk.

    Raises
    ------
    OptionError
        It cannot be read, is another package, or lacks one of the files.
    """
    where = repr(str(path))
    try:
        if is_dir(path):
            found = dict(_of_folder(path))
        elif is_file(path):
            with path.open("rb") as stream:
                found = dict(_of_archive(stream))
        else:
            raise _no_runtime(f"{where} does not exist.")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as exc:
        if isinstance(exc, OptionError):
            raise
        raise _no_runtime(f"{where} cannot be read as an archive (.tgz): {exc}.") from exc
    missing = [name for name in _WANTED if name not in found]
    if missing:
        raise _no_runtime(f"{where} is no package {_PACKAGE!r}: it lacks {missing}.")
    version = _version_of(found.pop(_ABOUT), where)
    return Runtime(version, {Path(name).name: content for name, content in found.items()})


def _no_runtime(message: str) -> OptionError:
    return OptionError(
        f"The runtime {message}",
        hint=f"Give the archive {PUBLISHED.url}, or a folder with what is in it, or leave --runtime"
        " out to have it downloaded.",
    )


def _version_of(about: bytes, where: str) -> str:
    try:
        told = json.loads(about)
        name, version = told["name"], told["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise _no_runtime(f"{where} is no package of npm: its {_ABOUT} tells no name.") from exc
    if name != _PACKAGE or not isinstance(version, str):
        raise _no_runtime(f"{where} is the package {name!r}; expected was {_PACKAGE!r}.")
    return version


def _of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    root = path if is_file(path / _ABOUT) else path / "package"
    for name, most in _WANTED.items():
        if is_file(root / name):
            with (root / name).open("rb") as stream:
                yield name, _read(stream, name, most)


def _of_archive(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    with (
        gzip.GzipFile(fileobj=stream) as unpacked,
        tarfile.open(fileobj=_Bounded(unpacked), mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.partition("/")[2]  # all of a package lies in one folder
            if name in _WANTED and member.isreg():
                content = archive.extractfile(member)
                if content is not None:
                    yield name, _read(content, name, _WANTED[name])


def _read(stream: IO[bytes], name: str, most: int) -> bytes:
    content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(f"its {name} has more than {most:,} bytes")
    return content


class _Bounded(io.RawIOBase):
    """What is read of a stream, up to a limit: a small archive may unpack to any size."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._left = stream, _MOST

    def read(self, size: int = -1, /) -> bytes:
        if size < 0 or size > self._left:
            raise OSError(f"it unpacks to more than {_MOST:,} bytes")
        content = self._stream.read(size)
        self._left -= len(content)
        return content
