"""The label of an image as text, where it may name several labels: ``cat|outdoor``.

Part of the vocabulary: text alone. A feature file stores such a cell as it stands in its source;
what it means is decided where a head is trained, or judged.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlpipe.errors import OptionError

DEFAULT_SEPARATOR = "|"


def separator_of(multi_label: bool, given: str | None) -> str | None:
    """What stands between the labels of a cell; None where a cell is one label.

    Parameters
    ----------
    multi_label : bool
        Whether a cell may name several labels.
    given : str or None
        By default ``DEFAULT_SEPARATOR``.

    Raises
    ------
    OptionError
        It is no text, or has no characters; or there are not several labels to separate.
    """
    if given is None:
        return DEFAULT_SEPARATOR if multi_label else None
    if not isinstance(given, str) or not given:
        raise OptionError(
            f"The label separator is {given!r}; it must be a text of at least one character.",
            hint="For example '|', ';' or ' '.",
        )
    if not multi_label:
        raise OptionError(
            f"The label separator {given!r} separates nothing: an image is of one class.",
            hint="Add --multi-label where an image may have several labels.",
        )
    return given


def names_in(cell: str, separator: str) -> list[str]:
    """Labels that a cell names: each once, sorted, without blanks around it.

    Nothing between two separators, or beside one, names nothing: a cell of a separator alone is an
    image with none of the labels.
    """
    parts = (part.strip() for part in cell.split(separator))
    return sorted({part for part in parts if part})


def joined(names: Iterable[str]) -> str:
    r"""Names with "|" between them; one within a name becomes "\|", and "\" becomes "\\"."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in names)


def parted(text: str) -> list[str]:
    """What ``joined`` joined; no text is no name."""
    names, escaped = [""], False
    for c in text:
        if escaped or c not in "\\|":
            names[-1] += c
            escaped = False
        elif c == "|":
            names.append("")
        else:
            escaped = True
    return names if text else []
