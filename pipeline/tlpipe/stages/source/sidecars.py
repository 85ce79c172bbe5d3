"""Label files that stand beside an image in an archive, as WebDataset names them.

Source of the naming: webdataset's documentation, "The WebDataset Format": the files of one sample
stand next to one another and share their name up to the first dot of its last component.
"""

from __future__ import annotations

import json
from typing import Any

SIDECAR_EXTENSIONS = frozenset({".cls", ".txt", ".json"})

MOST_SIDECAR_BYTES = 1 << 20
"""Of a label file that is read; each is in memory whole."""

MOST_LABEL = 256
"""Characters of a label."""

LABEL_KEYS = ("label", "cls", "class")
"""Keys of a JSON object that tell the label, the first that is there."""


class SidecarError(Exception):
    """A label file cannot be used."""


def base_of(name: str) -> str:
    """What the names of a sample's files have in common: all up to the first dot of the last part.

    A name that begins with a dot there is hidden, and none of a sample.
    """
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    return name if dot < 0 else name[:dot]


class Sidecars:
    """What the label files of one image say."""

    __slots__ = ("_label", "_more", "_text")

    def __init__(self) -> None:
        self._label: str | None = None
        self._text: str | None = None
        self._more: dict[str, Any] | None = None

    def add(self, extension: str, content: bytes) -> None:
        """Take in a label file; the first of each kind counts.

        Raises
        ------
        SidecarError
            It cannot be used; the message is an end of a sentence.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise SidecarError("is no UTF-8 text") from exc
        if extension == ".json":
            self._take_json(text)
        elif extension == ".cls":
            if self._label is None:
                self._label = checked_label(text)
        elif self._text is None:
            self._text = checked_label(text)

    def _take_json(self, text: str) -> None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise SidecarError(f"is no JSON ({exc})") from exc
        if not isinstance(value, dict):
            raise SidecarError("holds no JSON object")
        if self._more is None:
            self._more = value

    @property
    def label(self) -> str | None:
        """What they say together: .cls before .json before .txt, which may be a caption.

        A .txt file is none where a .cls or .json stands beside it.
        """
        if self._label is not None:
            return self._label
        if self._more is None:
            return self._text
        for key in LABEL_KEYS:
            value = self._more.get(key)
            if isinstance(value, str | int | float):
                return checked_label(value if isinstance(value, str) else as_text(value))
        return None

    @property
    def columns(self) -> list[str]:
        """Keys of the JSON object that may serve as further columns: those of plain values."""
        more = self._more or {}
        return [
            key
            for key, value in more.items()
            if key and key not in LABEL_KEYS and not isinstance(value, dict | list)
        ]

    def values(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Values of some columns; an empty text where there is none."""
        more = self._more or {}
        return tuple(as_text(more.get(name)) for name in columns)


def as_text(value: object) -> str:
    """A value of JSON as the text of a cell."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def checked_label(text: str) -> str | None:
    """A label without the blanks around it; None where there is nothing else.

    Raises
    ------
    SidecarError
        It is none: more than a line, or longer than a label is.
    """
    label = text.strip()
    if len(label) > MOST_LABEL:
        raise SidecarError(f"holds {len(label):,} characters; a label has at most {MOST_LABEL}")
    if not label.isprintable():
        raise SidecarError("holds more than one line, or characters that cannot be printed")
    return label or None
