"""Names and files near to one that does not exist: what somebody may have meant.

Takes a name and the known ones, or a path; gives a question to end a message with. Imports
``files``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tlpipe.files import is_dir

_ALIKE = 0.7
"""From this ratio of ``difflib`` on a name counts as near: 'gpu' must not become 'cpu' (0.67)."""

_MOST_LISTED = 10_000
"""Files of a folder that are compared: in one with millions, an error should not take a minute."""


def did_you_mean(given: str, known: Iterable[str], most: int = 1) -> str:
    """A question with the known names that are nearest; empty where none is near.

    Parameters
    ----------
    given : str
        What was asked for. Case, and "-" or "_", make no difference.
    known : iterable of str
        In the order in which equally near ones are to be named.
    most : int
        How many are named at most.
    """
    near = _nearest(given, known, most)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _nearest(given: str, known: Iterable[str], most: int) -> list[str]:
    """Names that begin with what was given, or else those that differ by little."""
    import difflib  # only where something is wrong: the command line should not wait for it

    wanted = _plain(given)
    names = {_plain(name): name for name in reversed(list(known))}
    begun = [plain for plain in names if wanted and plain.startswith(wanted)]
    if begun and len(wanted) > 1:
        found = sorted(begun, key=len)[:most]
    else:
        found = difflib.get_close_matches(wanted, list(names), n=most, cutoff=_ALIKE)
    return [name for plain, name in reversed(names.items()) if plain in found]


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def no_file(path: Path, what: str, of_folder: str = "") -> tuple[str, str]:
    """Message and hint of an error: there is no file at `path`.

    Parameters
    ----------
    path : pathlib.Path
    what : str
        What it should be, such as "The classifier".
    of_folder : str, optional
        The hint where there is a folder.
    """
    if is_dir(path):
        return f"{what} {str(path)!r} is a folder, not a file.", of_folder
    return f"{what} {str(path)!r} does not exist.", similar_file(path)


def similar_file(path: Path) -> str:
    """A question with the file or folder beside `path` whose name is nearest; empty without one."""
    names = []
    try:
        for entry in path.parent.iterdir():
            names.append(entry.name)
            if len(names) == _MOST_LISTED:
                break
    except (OSError, ValueError):  # there is no such folder, or its name cannot be one
        return ""
    near = _nearest(path.name, sorted(n for n in names if n != path.name), 1)
    return f"Did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def sentences(*parts: str) -> str:
    """Sentences one after the other; empty ones are left out."""
    return " ".join(part for part in parts if part)
