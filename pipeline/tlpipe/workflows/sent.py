"""What a driver sends to the workers of a cluster: a source's facts, and a network.

Imports neither h5py nor a cluster library.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlpipe.errors import ClusterError, SourceError
from tlpipe.execution import Execution
from tlpipe.seams import OpenedNetwork, Reader
from tlpipe.stages.session import open_network
from tlpipe.stages.source import Source
from tlpipe.types import Reject, Stage
from tlpipe.version import __version__
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.shared_storage import SharedStorage


@dataclass(frozen=True)
class SentNetwork:
    """An ONNX file to open on a worker, so that all run the very same one.

    Attributes
    ----------
    content : bytes
    execution : Execution
        With device and library settled.
    outputs : list of str or None
        Those to compute; None for all.
    """

    content: bytes = field(repr=False)
    execution: Execution
    outputs: list[str] | None = None

    @classmethod
    def of(cls, path: Path, execution: Execution) -> Any:
        """Stand for the network in a file."""
        return cls(path.read_bytes(), execution)

    def only(self, outputs: list[str], /) -> SentNetwork:
        """Give the same network, computing these outputs alone."""
        return replace(self, outputs=outputs)

    def open(self, threads: int) -> OpenedNetwork:
        """Open it here; raises as ``open_network``."""
        network = open_network(self.content, replace(self.execution, threads=threads))
        return network if self.outputs is None else network.only(self.outputs)


def opened_on_worker(
    source: SentSource, network: SentNetwork, options: RunOptions, cores: int
) -> tuple[OpenedNetwork, RunOptions]:
    """The network, opened on a worker of `cores` cores, and the options with which it works there.

    Raises
    ------
    ClusterError, SourceError
        As from ``SentSource.check_node``.
    DeviceError, BackboneError, OptionError
        As from ``SentNetwork.open``.
    """
    source.check_node()
    opened = network.open(cores)
    return opened, replace(options, engine="local", address=None, threads=cores + opened.lanes)


@dataclass(frozen=True)
class SentSource:
    """What a worker must know of a source whose items it is sent.

    Attributes
    ----------
    name, paths, walked, reader
        As those of ``Source``.
    shared : SharedStorage
        Where the driver's output lies.
    folder : pathlib.Path or None
        The driver's working folder, where the source's paths are relative to it.
    version : str
        Of the driver's tlpipe.
    """

    name: str
    paths: tuple[Path, ...]
    walked: bool
    reader: Reader
    shared: SharedStorage
    folder: Path | None = None
    version: str = __version__

    @classmethod
    def of(cls, source: Source, note: Path) -> SentSource:
        """Facts of a source; the driver has written `note`.

        Raises
        ------
        OutputError
            The note cannot be read.
        """
        paths = tuple(path.absolute() for path in source.paths)
        shared = SharedStorage.of(note.absolute())
        folder = None if list(paths) == list(source.paths) else Path.cwd()
        return cls(source.name, paths, source.walked, source.reader, shared, folder)

    def opened(self) -> Source:
        """The source, which lists nothing."""
        return Source(
            self.name,
            lambda survey, asked: iter(()),
            reader=self.reader,
            paths=self.paths,
            walked=self.walked,
        )

    def check_node(self) -> None:
        """Refuse to work on a node that has another tlpipe, or does not see what it needs.

        The process goes to the driver's folder, where the source is named from there.

        Raises
        ------
        ClusterError
            It has another version, or does not see the output's folder.
        SourceError
            It does not see the source.
        """
        if self.version != __version__:
            raise ClusterError(
                f"The node {socket.gethostname()!r} has tlpipe {__version__}, not {self.version}.",
                hint="Install the same version on all nodes.",
            )
        self.shared.check()
        if self.walked or self.folder is not None:
            self._check_seen()
        if self.folder is not None:
            os.chdir(self.folder)

    def check_reject(self, reject: Reject) -> None:
        """See that an image is not said to be missing that only this node does not see.

        Raises
        ------
        SourceError
        """
        if reject.stage is Stage.SOURCE:
            self._check_seen()

    def _check_seen(self) -> None:
        for path in (*self.paths, *filter(None, [self.folder])):
            if not path.exists():
                raise SourceError(
                    f"The node {socket.gethostname()!r} does not see {str(path)!r}, of which the"
                    f" source {self.name!r} consists.",
                    hint="Images must be on storage that all nodes share, under the same path on"
                    " each.",
                )
