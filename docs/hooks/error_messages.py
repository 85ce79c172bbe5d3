"""The generated parts of the page of errors: exit codes, messages, reasons of rejects.

Messages and hints come from the code (``error_sites.py``), what a class and a reason mean from
where they are defined. Owns the words that stand nowhere else: when a class comes up, and what to
do then.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from error_sites import Site, inner_reasons, sites

from tlpipe import errors, types
from tlpipe.cli.main import cli
from tlpipe.errors import SourceError, TlpipeError
from tlpipe.stages.source.tar_list import NotAnArchiveError

# When a class of errors comes up, and what to do.
ABOUT: dict[str, tuple[str, str]] = {
    "OptionError": (
        "Before any work, when options contradict each other or the files they are for.",
        "Correct the option that the message names; `tlpipe COMMAND --help` lists all.",
    ),
    "UnknownBackboneError": (
        "When `--backbone` names neither a card nor a file.",
        "`tlpipe models list` shows the names.",
    ),
    "CardError": (
        "When a card or a file about preprocessing is read.",
        "Correct the file at the field named; `models/README.md` explains each field.",
    ),
    "WeightsError": (
        "When the weights of a backbone are found, fetched or converted.",
        "Fetch them again, or correct the card that states their checksum.",
    ),
    "DownloadError": (
        "When a file is fetched and no address gives it whole.",
        (
            "Run the command again, what has arrived is kept; or fetch the file by other means and "
            "give it with `tlpipe models pull BACKBONE --from FILE`."
        ),
    ),
    "DeviceError": (
        "Before the first image, when `--device` or `--precision` asks for what the machine lacks.",
        "`tlpipe doctor` names cause and cure; `--device cpu` runs everywhere.",
    ),
    "ClusterError": (
        "With `--engine ray`, at the start or while it runs.",
        "See to the cluster and run the command again: finished parts are kept.",
    ),
    "BackboneError": (
        "When a network is read, cut, quantised, opened or run.",
        "Export it in another way as the hint says, or choose another backbone.",
    ),
    "UndecidedError": (
        "When a network of your own is taken as a backbone.",
        "Say what cannot be told: `--layer` and `--pooling`; `tlpipe models inspect` lists layers.",
    ),
    "SourceError": (
        "When a source is opened or listed. A single bad image is a reject, not an error.",
        "Correct the place that the message names.",
    ),
    "NotAnArchiveError": (
        "When a file is a `.tar` or `.zip` by its name only.",
        "Make or copy it again, or leave it out.",
    ),
    "ImageError": (
        "In `tlpipe.sklearn`, whose functions give a row for each image or nothing.",
        "Leave the image out, or ask for NaN with `on_error`.",
    ),
    "FeatureFileError": (
        "When a feature file is opened, or cannot serve the command.",
        "Name a feature file of `tlpipe embed`, or embed the images again.",
    ),
    "DamagedFileError": (
        "When a checksum, a shape or a part of a feature file is not the stored one.",
        "`tlpipe verify FILE` names all damage; `tlpipe repair FILE -o OTHER` keeps what is good.",
    ),
    "StaleFeaturesError": (
        "When stored embeddings have another backbone, layer, preprocessing or precision.",
        "Name another output, ask for what the file holds, or embed anew with `--overwrite`.",
    ),
    "LockedError": (
        "When two commands write the same output.",
        "Wait for the other one, or choose another output.",
    ),
    "ClassifierError": (
        "When a classifier is opened, or cannot do what is asked.",
        "Name a file that `tlpipe train` or `tlpipe train-head` wrote; train anew if damaged.",
    ),
    "TrainingDataError": (
        "Before a head is trained, when labels or splits do not allow it.",
        "Add labelled images of at least two classes to the training split.",
    ),
    "ConvergenceError": (
        "While a head is trained on embeddings with absurd numbers.",
        "Look for such embeddings, and embed again with another backbone or precision.",
    ),
    "UnknownFileError": (
        "When `tlpipe inspect` or `tlpipe compare` is given a file that is none of tlpipe's.",
        "Name a feature file, a classifier, predictions, a report or a run record.",
    ),
    "TableError": (
        "When `tlpipe import` reads vectors, or a Parquet file is opened.",
        "Correct the row or column that the message names.",
    ),
    "ExportError": (
        "At the end of training, when the written network does not give the head's own answers.",
        "Train again; report it with the message if it comes again.",
    ),
    "JobError": (
        "When `tlpipe run` reads a job file. All mistakes are named at once.",
        "Correct the lines named; `tlpipe run JOB --dry-run` checks again.",
    ),
    "OutputError": (
        "Before any work when an output cannot be written; later when the disk is full.",
        "Name another output, or make room. A file that existed before is unchanged.",
    ),
}

# What to do about images that were left out.
CURES = {
    "missing": "Bring the file back, or correct its line of the manifest.",
    "unreadable": "Correct its permissions; a folder or a device is no image.",
    "unreachable": "Run the same command again: it asks for what is missing, and for nothing else.",
    "empty": "Copy the file again.",
    "not-an-image": "Remove it from the source.",
    "truncated": "Copy or fetch it again.",
    "corrupt": "Copy or fetch it again.",
    "too-large": "Make it smaller.",
    "unsupported": "Save it as 8-bit RGB or grey.",
    "duplicate-key": "Give it another name, or remove its second line.",
    "non-finite": "Use `--precision fp32`, or another backbone.",
    "crashed": "Look at the image alone, and at the memory of the cluster's nodes.",
}

_EXIT_CODES = {
    "0": "Done.",
    "1": "An error: one of the classes below, or of the system's. Outputs that were not finished "
    "were not written. `tlpipe verify` also gives it when a file is not as it should be.",
    "2": "Wrong usage: an unknown command or option, or a value of the wrong kind; nothing was "
    "done.",
    "3": "Done, and the output is whole, but `--max-rejects` allows fewer images to be left out.",
    "130": "Interrupted with Ctrl-C (128 + 2, SIGINT).",
    "141": "Nobody reads standard output any more, as when `head -1` does (128 + 13, SIGPIPE). "
    "Files are written by then.",
    "128 + n": "Stopped by signal n: 143 for SIGTERM, 129 for SIGHUP. 137 (SIGKILL) is the "
    "system's own, often when memory ran out.",
}

_AREAS = {
    "cli": "The command line",
    "graph": "Networks",
    "sklearn": "Estimators",
    "stages/download": "Downloads",
    "stages/session": "Networks that run",
    "stages/source": "Sources",
    "stages/store": "Feature files",
    "stages/tables": "Tables of vectors",
    "workflows/jobs": "Job files",
}


def exit_codes() -> str:
    """Each exit code, what it means, and which commands give it."""
    with_rejects = ", ".join(f"`{name}`" for name in _commands_with_rejects(cli, ""))
    rows = [
        (code, meaning, f"{with_rejects}." if code == "3" else "All commands.")
        for code, meaning in _EXIT_CODES.items()
    ]
    return _table(("code", "what it means", "given by"), rows)


def _commands_with_rejects(group: click.Group, before: str) -> Iterator[str]:
    """Names of the commands that end with exit code 3."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands_with_rejects(command, f"{before}{name} ")
        elif command.callback is not None and "TOO_MANY_REJECTS" in inspect.getsource(
            inspect.unwrap(command.callback)
        ):
            yield f"{before}{name}"


def messages() -> str:
    """A section for each class of errors, with a table of its messages."""
    found = _defined()
    found.insert(1 + found.index(SourceError), NotAnArchiveError)
    by_kind: dict[str, list[Site]] = {kind.__name__: [] for kind in found}
    for site in sites():
        by_kind[site.kind].append(site)
    return "\n".join(_class(kind, by_kind[kind.__name__]) for kind in found)


def _defined() -> list[type[TlpipeError]]:
    """The classes of tlpipe's errors, in the order of their definition."""
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TlpipeError) and kind is not TlpipeError
    ]


def _class(kind: type[TlpipeError], found: list[Site]) -> str:
    when, cure = ABOUT[kind.__name__]
    bases = " and ".join(f"`{base.__name__}`" for base in kind.__bases__ if base is not TlpipeError)
    meaning = inspect.cleandoc(str(kind.__doc__)).splitlines()[0]
    rows = dict.fromkeys((f"`{site.message}`", _prose(site.hint) or "-") for site in found)
    return (
        f"### {kind.__name__}\n\n{meaning} Derives from {bases}.\n\n"
        f"It comes up {when[0].lower()}{when[1:]} What to do: {cure}\n\n"
        + _table(("message", "what to do"), list(rows))
    )


def rejects() -> str:
    """Why an image may be left out, what that means, and what to do."""
    rows = [(f"`{reason}`", reason.meaning, CURES[reason]) for reason in types.Reason]
    return _table(("reason", "what it means", "what to do"), rows)


def details() -> str:
    """Words that stand inside messages, by the part of tlpipe that says them."""
    areas: dict[str, dict[str, None]] = {}
    for site in inner_reasons():
        if re.search(r"[a-z]{2,} |[a-z]{4,}", re.sub(r"\{[^}]*\}", "", site.message)):
            areas.setdefault(_area(site.file), {})[site.message] = None
    parts = [
        f"### {area}\n\n" + "\n".join(f"- `{words}`" for words in sorted(found)) + "\n"
        for area, found in sorted(areas.items())
    ]
    return "\n".join(parts)


def _area(file: str) -> str:
    for folder, title in _AREAS.items():
        if file.startswith(f"{folder}/"):
            return title
    return "Elsewhere"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _prose(text: str) -> str:
    """A text as Markdown that shows it as it is."""
    return re.sub(r"([*_\[\]`])", r"\\\1", text).replace("<", "&lt;")
