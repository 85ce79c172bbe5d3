"""Readers for the workers of a cluster: slow ones, and some that kill the process they are in."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tlpipe.stages.source import FileReader
from tlpipe.types import FileStat, Reject


@dataclass(frozen=True)
class SlowReader:
    """Takes a while for each image."""

    seconds: float

    def read(self, place: str, /) -> tuple[bytes, FileStat] | Reject:
        time.sleep(self.seconds)
        return FileReader().read(place)


@dataclass(frozen=True)
class DeadlyReader:
    """Kills its process at an image; with a mark, only where that is not there yet."""

    name: str
    mark: Path | None = None

    def read(self, place: str, /) -> tuple[bytes, FileStat] | Reject:
        if place.endswith(self.name) and not (self.mark and self.mark.exists()):
            if self.mark:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return FileReader().read(place)


@dataclass(frozen=True)
class LoudReader:
    """Logs a warning for one image."""

    name: str

    def read(self, place: str, /) -> tuple[bytes, FileStat] | Reject:
        if place.endswith(self.name):
            logging.getLogger("tlpipe.loud").warning("This is %s.", self.name)
        return FileReader().read(place)
