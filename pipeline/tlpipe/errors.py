"""The errors that tlpipe raises on purpose, and their exit codes.

Owns the one tree below. May import nothing. Every class also derives from the standard exception
that fits, so that code which does not know tlpipe can still catch it::

    TlpipeError
    ├── OptionError            (ValueError)    an option's value makes no sense
    ├── UnknownBackboneError   (LookupError)   no card has that name
    ├── CardError              (ValueError)    a card is incomplete or wrong
    ├── WeightsError           (ValueError)    pretrained weights are missing or not the stated ones
    ├── DownloadError          (OSError)       a file cannot be fetched from any of its addresses
    ├── DeviceError            (RuntimeError)  the device asked for cannot be used
    ├── ClusterError           (RuntimeError)  a cluster cannot be reached, or loses work
    ├── BackboneError          (RuntimeError)  the network cannot be opened or run
    │   └── UndecidedError     (LookupError)   its last layer or embedding cannot be told
    ├── SourceError            (ValueError)    the images cannot be listed
    ├── ImageError             (ValueError)    an image that must be used cannot be
    ├── FeatureFileError       (ValueError)    not a feature file, or not a usable one
    │   ├── DamagedFileError   (ValueError)    it is not as it was stored
    │   └── StaleFeaturesError (ValueError)    its embeddings were made in another way
    ├── LockedError            (OSError)       another process writes the same file
    ├── ClassifierError        (ValueError)    not a classifier, or not a usable one
    ├── TrainingDataError      (ValueError)    no head can be trained on these embeddings
    ├── ConvergenceError       (ArithmeticError) a head's optimum cannot be found
    ├── UnknownFileError       (ValueError)    a file is none that tlpipe writes or reads
    ├── TableError             (ValueError)    a table of vectors cannot be read
    ├── ExportError            (RuntimeError)  the written classifier disagrees with its head
    ├── JobError               (ValueError)    a job file has mistakes
    └── OutputError            (OSError)       an output cannot be written

Foreign exceptions are wrapped once, where their library is owned, with ``from``.
"""

from __future__ import annotations

from collections.abc import Sequence

CUT_OR_DAMAGED = "It was cut, or is damaged: make or copy it again."
"""Hint of errors about a file of which something is missing, or makes no sense."""


class TlpipeError(Exception):
    """Base of all errors that tlpipe raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, with the value shown, and what was expected. Full sentences.
    hint : str, optional
        What to do about it.

    Attributes
    ----------
    exit_code : int
        The exit status of a command that ends with this error.
    hint : str
        What to do about it; empty where the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message} {self.hint}" if self.hint else message

    @property
    def message(self) -> str:
        """What is wrong, without the hint."""
        return str(self.args[0])


class OptionError(TlpipeError, ValueError):
    """An option's value makes no sense."""


class UnknownBackboneError(TlpipeError, LookupError):
    """No card of the catalogue has that name."""


class CardError(TlpipeError, ValueError):
    """A backbone's card is incomplete or wrong."""


class WeightsError(TlpipeError, ValueError):
    """Pretrained weights are missing, or are not those the card states."""


class DownloadError(TlpipeError, OSError):
    """A file cannot be fetched, whole and right, from any of its addresses."""


class DeviceError(TlpipeError, RuntimeError):
    """The device that was asked for cannot be used."""


class ClusterError(TlpipeError, RuntimeError):
    """A Ray cluster cannot be reached, has no place for the work, or loses it again and again."""


class BackboneError(TlpipeError, RuntimeError):
    """A network cannot be opened or run."""


class UndecidedError(BackboneError, LookupError):
    """A network does not tell which of its layers is the last, or how to take its embedding."""


class SourceError(TlpipeError, ValueError):
    """The images of a source cannot be listed."""


class ImageError(TlpipeError, ValueError):
    """An image cannot be used, and was not to be left out."""


class FeatureFileError(TlpipeError, ValueError):
    """A file is not a feature file, or not one that can be used."""


class DamagedFileError(FeatureFileError, ValueError):
    """A feature file is not as it was stored."""


class StaleFeaturesError(FeatureFileError, ValueError):
    """The stored embeddings were made in another way than the ones now asked for."""


class LockedError(TlpipeError, OSError):
    """Another process is writing the same file."""


class ClassifierError(TlpipeError, ValueError):
    """A file is not a classifier, or not one that can be used."""


class TrainingDataError(TlpipeError, ValueError):
    """No head can be trained on these embeddings."""


class ConvergenceError(TlpipeError, ArithmeticError):
    """The optimum of a head's objective was not found."""


class UnknownFileError(TlpipeError, ValueError):
    """A file is none that tlpipe writes or reads."""


class TableError(TlpipeError, ValueError):
    """A table of vectors made elsewhere cannot be read, or lacks something."""


class ExportError(TlpipeError, RuntimeError):
    """A classifier that was about to be written disagrees with the head it was made from."""


class JobError(TlpipeError, ValueError):
    """A job file cannot be run: all that is wrong with it, and nothing was done.

    Parameters
    ----------
    where : str
        What the message calls the job file.
    mistakes : sequence of str
        Each in one line.

    Attributes
    ----------
    mistakes : list of str
    """

    def __init__(self, where: str, mistakes: Sequence[str]) -> None:
        self.mistakes = list(mistakes)
        count = len(self.mistakes)
        many = "one mistake" if count == 1 else f"{count} mistakes"
        lines = "".join(f"\n  {line}" for line in self.mistakes)
        super().__init__(f"The job {where} has {many}; nothing was done.{lines}")


class OutputError(TlpipeError, OSError):
    """An output cannot be written."""
