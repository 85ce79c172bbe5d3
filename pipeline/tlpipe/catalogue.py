"""The catalogue of backbones: finds and reads their cards.

Takes a name or a path, gives a ``Card``. Imports ``card`` and ``errors``.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from pathlib import Path

from tlpipe.card import Card
from tlpipe.errors import CardError, UnknownBackboneError


def cards_dir() -> Path:
    """Folder of the cards that come with tlpipe."""
    package = Path(__file__).parent
    installed = package / "cards"
    return installed if installed.is_dir() else package.parents[1] / "models"


@functools.cache
def all_cards() -> dict[str, Card]:
    """All cards that come with tlpipe, by name, sorted."""
    cards = (read_card(path) for path in sorted(cards_dir().glob("*.toml")))
    return {card.name: card for card in cards}


def find_card(name: str | Path) -> Card:
    """Card of a backbone.

    Parameters
    ----------
    name : str or pathlib.Path
        A name of the catalogue; an architecture alone, where only one card has it; or the path of
        a card file (anything that ends in ".toml").

    Raises
    ------
    UnknownBackboneError
        There is no such card.
    CardError
        There is, but it is wrong.
    """
    name = str(name)
    if name.endswith(".toml"):
        return read_card(Path(name))
    cards = all_cards()
    matches = [card for card in cards.values() if name in (card.name, card.architecture)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownBackboneError(
            f"The backbone {name!r} could be any of {[card.name for card in matches]}.",
            hint="Give the full name.",
        )
    known = sorted({*cards, *(card.architecture for card in cards.values())})
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise UnknownBackboneError(
        f"There is no backbone {name!r} in the catalogue.",
        hint=f"{hint}'tlpipe models list' shows all; the path of a card (.toml) works too.",
    )


def read_card(path: Path) -> Card:
    """Read and check one card file; the path of local weights is made absolute.

    Raises
    ------
    CardError
        The file cannot be read or is wrong.
    """
    where = f"The card {str(path)!r}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardError(f"{where} does not exist.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(f"{where} cannot be read: {exc}.") from exc
    weights = table.get("weights")
    if isinstance(weights, dict) and not weights.get("package") and "file" in weights:
        weights["file"] = str(path.resolve().parent / str(weights["file"]))
    return Card.from_dict(table, where)
