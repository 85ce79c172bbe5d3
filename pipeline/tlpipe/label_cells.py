"""The label of an image as text, where it may name several labels: ``cat|outdoor``.

Part of the vocabulary: text alone. A feature file stores such a cell as it stands in its source;
what it means is decided where a head is trained, or judged.
"""

from __future__ import annotations

from tlpipe.errors import OptionError

DEFAULT_SEPARATOR = "|"


def check_separator(separator: object) -> str:
    """The text that stands between labels.

    Raises
    ------
    OptionError
        It is no text, or has no characters.
    """
    if not isinstance(separator, str) or not separator:
        raise OptionError(
            f"The label separator is {separator!r}; it must be a text of at least one character.",
            hint="For example '|', ';' or ' '.",
        )
    return separator


def names_in(cell: str, separator: str) -> list[str]:
    """Labels that a cell names: each once, sorted, without blanks around it.

    Nothing between two separators, or beside one, names nothing: a cell of a separator alone is an
    image with none of the labels.
    """
    parts = (part.strip() for part in cell.split(separator))
    return sorted({part for part in parts if part})
