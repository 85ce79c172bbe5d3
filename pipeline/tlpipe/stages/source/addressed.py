"""Addresses as places of images, and which kinds of them are read."""

from __future__ import annotations

from dataclasses import dataclass

from tlpipe.addresses import STORES, is_store, is_web, local_path, scheme_of, shown
from tlpipe.errors import SourceError


@dataclass(frozen=True, slots=True)
class Address:
    """The place of an image on a network.

    Attributes
    ----------
    url : str
        Of the web, or of an object store.
    inside : bool
        Whether the user named it, or where it lies: its server may then be in a private network.
    size_bytes, mtime_ns : int
        As its store listed it; -1 where that is not known.
    """

    url: str
    inside: bool = False
    size_bytes: int = -1
    mtime_ns: int = -1


def named(written: str) -> Address | str:
    """Place of an address that the user named: it may lead anywhere.

    Raises
    ------
    SourceError
        It is of no kind that is read.
    """
    scheme = scheme_of(written)
    if scheme == "file":
        return local_path(written)
    if not (is_web(written) or is_store(written)) or "::" in written.partition("?")[0]:
        raise SourceError(
            f"The address {shown(written)!r} is of no kind that is read.",
            hint=f"Addresses start with http://, https://, file:// or one of {list(STORES)}.",
        )
    return Address(written, inside=True)
