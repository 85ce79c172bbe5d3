"""The catalogue of backbones: finds and reads their cards, those of tlpipe and the user's own.

Takes a name or a path, gives a ``Card``. Imports ``card``, ``errors`` and ``files``.
"""

from __future__ import annotations

import functools
import logging
import tomllib
from pathlib import Path

from tlpipe.card import Card
from tlpipe.errors import CardError, UnknownBackboneError
from tlpipe.files import is_file, user_cards_dir
from tlpipe.near import did_you_mean, no_file, sentences

_log = logging.getLogger(__name__)


def cards_dir() -> Path:
    """Folder of the cards that come with tlpipe."""
    package = Path(__file__).parent
    installed = package / "cards"
    return installed if installed.is_dir() else package.parents[1] / "models"


@functools.cache
def shipped_cards() -> dict[str, Card]:
    """Cards that come with tlpipe, by name, sorted."""
    return _cards_in(cards_dir())


def all_cards() -> dict[str, Card]:
    """All cards, by name, sorted: tlpipe's and the user's own, which cannot replace one of those.

    A card of the user's that cannot be read is left out, with a warning that names it.
    """
    found = {}
    for path in sorted(user_cards_dir().glob("*.toml")):
        try:
            card = read_card(path)
        except CardError as exc:
            _log.warning("%s", exc)
            continue
        found[card.name] = card
    return dict(sorted((found | shipped_cards()).items()))


def _cards_in(folder: Path) -> dict[str, Card]:
    cards = (read_card(path) for path in sorted(folder.glob("*.toml")))
    return {card.name: card for card in cards}


def find_card(name: str | Path) -> Card:
    """Card of a backbone.

    Parameters
    ----------
    name : str or pathlib.Path
        A name of the catalogue; an architecture alone, where only one card has it (one that comes
        with tlpipe goes before the user's own); or the path of a card file (anything that ends in
        ".toml").

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
    if name in shipped_cards():
        return shipped_cards()[name]
    # First among tlpipe's own: a card of the user's must not change what a name of these means.
    matches = [card for card in shipped_cards().values() if name == card.architecture]
    own = user_cards_dir() / f"{name}.toml"
    if not matches and is_file(own):  # one that is wrong is an error here
        return read_card(own)
    cards = all_cards()
    if name in cards:  # in a file of another name
        return cards[name]
    matches = matches or [card for card in cards.values() if name == card.architecture]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownBackboneError(
            f"The backbone {name!r} could be any of {[card.name for card in matches]}.",
            hint="Give the full name.",
        )
    known = sorted({*cards, *(card.architecture for card in cards.values())})
    raise UnknownBackboneError(
        f"There is no backbone {name!r} in the catalogue.",
        hint=sentences(
            did_you_mean(name, known, most=4),
            "'tlpipe models list' shows all; the path of a network (.onnx) or of a card (.toml)"
            " works too.",
        ),
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
        message, hint = no_file(path, "The card")
        raise CardError(message, hint=hint) from None
    except (OSError, RecursionError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(
            f"{where} cannot be read: {exc}.",
            hint="A card is a TOML file; models/README.md explains each field.",
        ) from exc
    weights = table.get("weights")
    if isinstance(weights, dict) and not weights.get("package") and not weights.get("urls"):
        weights["file"] = str(path.resolve().parent / str(weights.get("file", "")))
    return Card.from_dict(table, where)
