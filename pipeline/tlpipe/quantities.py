"""Amounts as people write them: read from the command line and from a job file, and told.

What reads takes a text and gives a number; a ``ValueError`` says what is no such amount, in a
sentence. Part of the vocabulary: imports nothing of tlpipe's.
"""

from __future__ import annotations

import re
from collections import Counter


def counted(number: int, noun: str) -> str:
    """`number` and `noun`, in the plural where there are not one: "1 image", "1,200 images"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}" + ("" if number == 1 else plural)


def by_count(counts: Counter[str]) -> str:
    """What was counted, the commonest first: "1,200 truncated, 1 empty"."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.most_common())


def parsed_limit(text: str, *, whole: bool = False) -> float:
    """Read "12" as the int 12 and "5%" as the float 0.05; "100%" only where `whole`."""
    text = text.strip()
    if text.isdecimal():
        return int(text)
    if re.fullmatch(r"\d{1,2}(\.\d+)?%", text) or (whole and text == "100%"):
        return float(text[:-1]) / 100
    raise ValueError(f"{text!r} is neither a number of images nor a share like 5%.")


def parsed_bytes(text: str) -> int:
    """Read "4GB" as 4 * 2^30."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is no size such as 800MB or 4GB.")
    return int(float(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1))


def parsed_image_size(text: str) -> tuple[int, int]:
    """Read "224" as (224, 224) and "192x256" as (192, 256): height and width in pixels."""
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size like 224 or 192x256.")
    return int(found[1]), int(found[2] or found[1])
