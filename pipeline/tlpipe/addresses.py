"""Addresses: what names a place on a network, how it is written, and how it is shown.

Part of the vocabulary. Imports ``errors`` alone.
"""

from __future__ import annotations

import base64
import posixpath
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from tlpipe.errors import SourceError

STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Schemes of object stores, which fsspec reads."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/[/]")  # of two letters or more: C:// is a disk
_KEPT = "%/:=&?~+!$,;'@()*[]"  # not quoted in an address that is written as one


def scheme_of(text: str) -> str:
    """Scheme of an address, in small letters; empty for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_web(text: str) -> bool:
    """Whether a text is an http or https address, by its beginning."""
    return text.lower().startswith(("http://", "https://"))


def is_store(text: str) -> bool:
    """Whether a text is an address in an object store, by its beginning."""
    return scheme_of(text) in STORES


def shown(address: str) -> str:
    """An address to be read by people and noted in files: without user, password and query.

    What is no address stays as it is.
    """
    if not scheme_of(address):
        return address
    try:
        parts = urlsplit(address)
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:  # of an IPv6 address that is none
        return re.sub(r"[?#].*", "", re.sub(r"//[^/]*@", "//", address, count=1), flags=re.S)
    query = "..." if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def asked(address: str) -> str:
    """A web address as it is sent: what may not stand in one is quoted, what is quoted stays.

    Raises
    ------
    ValueError
        It is no address.
    """
    parts = urlsplit(address.strip())
    netloc = parts.netloc
    if not netloc.isascii():
        user, at, host = netloc.rpartition("@")
        netloc = quote(user, safe="%:") + at + host.encode("idna").decode()
    path, query = quote(parts.path, safe=_KEPT), quote(parts.query, safe=_KEPT)
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def without_user(address: str) -> tuple[str, str]:
    """An address without user and password, and these as HTTP's Basic scheme has them (RFC 7617).

    The latter is empty where there are none.
    """
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, ""
    name, _, password = user.partition(":")
    token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {token}"


def server_of(address: str) -> str:
    """Scheme, host and port of a web address, or scheme and bucket of a store's; no user."""
    parts = urlsplit(address)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"


def host_of(address: str) -> str:
    """Name of the host, or of the bucket; empty where there is none."""
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def path_of(address: str) -> str:
    """The path of an address; of the web it is unquoted."""
    if is_web(address):
        return unquote(urlsplit(address).path)
    return "/" + address.partition("://")[2].partition("/")[2]


def name_of(address: str) -> str:
    """Last component of an address's path."""
    return posixpath.basename(path_of(address).rstrip("/"))


def folder_of(address: str) -> str:
    """The address without its last component and its query; it ends in "/"."""
    if is_web(address):
        parts = urlsplit(address)
        path = parts.path[: parts.path.rfind("/") + 1] or "/"
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    head, _, rest = address.partition("://")
    return f"{head}://{rest[: rest.rfind('/') + 1] or rest + '/'}"


def below(folder: str, path: str) -> str:
    """Address of a path, which is no address but names of folders and a file, below a folder."""
    return folder + (quote(path) if is_web(folder) else path)


def lies_in(address: str, folder: str) -> bool:
    """Whether an address is that of a folder or of something below it, without steps up."""
    if server_of(address) != server_of(folder):
        return False
    path, above = path_of(address), path_of(folder).rstrip("/") + "/"
    if any(part in ("..", ".") for part in path.split("/")) or "\\" in path:
        return False
    return (path + "/").startswith(above)


def local_path(address: str) -> str:
    """The path that a file:// address names.

    Raises
    ------
    SourceError
        It is one of another machine.
    """
    parts = urlsplit(address)
    if parts.netloc.lower() not in ("", "localhost"):
        raise SourceError(
            f"The address {shown(address)!r} names a file of another machine, {parts.netloc!r}.",
            hint="Write file:///PATH with three strokes, or the path alone.",
        )
    return url2pathname(parts.path)
