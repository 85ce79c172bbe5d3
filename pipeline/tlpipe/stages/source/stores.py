"""Object stores: the one module that imports fsspec.

What a store raises is wrapped here: ``StoreFailure`` says why, and whether the store or one object
is at fault.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import functools
import threading
from collections.abc import Coroutine
from typing import Any

from tlpipe.addresses import scheme_of, server_of, shown
from tlpipe.errors import SourceError
from tlpipe.stages.source.calls import Interrupted
from tlpipe.types import Reason

MOST_S = 120.0
"""Seconds that one request may take, with the store's own new tries."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_BOTO = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 3}}
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_RIGHTS = ("expired", "credential", "token")  # in what a store says of rights that are no more


class StoreFailure(Exception):  # noqa: N818  (it never leaves the stage)
    """Why a store did not give something.

    Parameters
    ----------
    reason : Reason
    why : str
        A clause.
    away : bool
        Whether the store is at fault, not one object.
    """

    def __init__(self, reason: Reason, why: str, *, away: bool) -> None:
        super().__init__(why)
        self.reason, self.away = reason, away


class Running:
    """Requests that are under way, to be interrupted; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[concurrent.futures.Future[Any]] = set()

    def result(self, work: Coroutine[Any, Any, Any], loop: Any, most_s: float) -> Any:
        """What a coroutine gives, which runs in the thread of a loop."""
        future = asyncio.run_coroutine_threadsafe(work, loop)
        with self._lock:
            self._futures.add(future)
        try:
            return future.result(most_s)
        except concurrent.futures.CancelledError as exc:
            raise Interrupted("the run has ended: nobody asks for this any more") from exc
        finally:
            future.cancel()
            with self._lock:
                self._futures.discard(future)

    def interrupt(self) -> None:
        """End them."""
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()


class Store:
    """A filesystem of fsspec's, as it is asked here.

    Parameters
    ----------
    url : str
        Any address in it.
    running : Running, optional

    Raises
    ------
    SourceError
        Its library is not installed, or will not have these settings.
    """

    def __init__(self, url: str, running: Running | None = None) -> None:
        self._fs = _filesystem(server_of(url), scheme_of(url), url)
        self._running = running or Running()

    def path(self, url: str) -> str:
        """An address, as the filesystem names it."""
        return str(self._fs._strip_protocol(url))

    def info(self, url: str) -> dict[str, Any]:
        """What a store says of an object or a folder: "type", "size" and so on."""
        found: dict[str, Any] = self._ask("info", self.path(url))
        return found

    def entries(self, url: str) -> list[dict[str, Any]]:
        """What lies in a folder, as for ``info``."""
        found: list[dict[str, Any]] = self._ask("ls", self.path(url), detail=True)
        return found

    def content(self, url: str, most: int) -> bytes:
        """Content of an object that is not empty, or its first `most` bytes."""
        return bytes(self._ask("cat_file", self.path(url), start=0, end=most))

    def copy(self, url: str, target: str, most_s: float) -> None:
        """Copy an object to a local file."""
        self._ask("get_file", self.path(url), target, most_s=most_s)

    def _ask(self, what: str, *args: Any, most_s: float = MOST_S, **options: Any) -> Any:
        try:
            if not getattr(self._fs, "async_impl", False):
                return getattr(self._fs, what)(*args, **options)
            work = getattr(self._fs, f"_{what}")(*args, **options)
            return self._running.result(work, self._fs.loop, most_s)
        except (Interrupted, MemoryError):
            raise
        except Exception as exc:  # each store's library raises whatever it likes
            raise _failure(exc) from exc


@functools.lru_cache(maxsize=64)
def _filesystem(server: str, scheme: str, url: str) -> Any:
    extra = _EXTRAS.get(scheme, "az")
    hint = f"Install what it takes: pip install 'tlpipe[{extra}]'."
    if scheme == "memory":
        hint = "Install what it takes: pip install 'tlpipe[remote]'."
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme in ("s3", "s3a"):
            options["config_kwargs"] = _BOTO
        return fsspec.core.url_to_fs(url, **options)[0]
    except ImportError as exc:
        raise SourceError(
            f"Addresses of the kind {scheme}:// cannot be read: {exc}.", hint=hint
        ) from exc
    except Exception as exc:  # a wrong setting of fsspec or of the store
        raise SourceError(
            f"{server} cannot be opened: {_text(exc)}.",
            hint="Correct the settings of fsspec (FSSPEC_* variables, its files) and of the store.",
        ) from exc


def _failure(exc: Exception) -> StoreFailure:
    text = _text(exc)
    if isinstance(exc, FileNotFoundError):
        return StoreFailure(Reason.MISSING, "there is no such object", away=False)
    names = {kind.__name__ for kind in type(exc).__mro__}
    if "NoCredentialsError" in names or "DefaultCredentialsError" in names:
        return StoreFailure(Reason.UNREADABLE, f"no credentials were found ({text})", away=True)
    if isinstance(exc, PermissionError):
        away = any(word in text.lower() for word in _RIGHTS)
        return StoreFailure(Reason.UNREADABLE, f"access was denied ({text})", away=away)
    if isinstance(exc, IsADirectoryError):
        return StoreFailure(Reason.UNREADABLE, "it is a folder", away=False)
    if isinstance(exc, TimeoutError | concurrent.futures.TimeoutError):
        return StoreFailure(Reason.UNREACHABLE, "nothing came in time", away=True)
    if isinstance(exc, ConnectionError) or any("Connect" in n or "Timeout" in n for n in names):
        return StoreFailure(Reason.UNREACHABLE, f"no connection ({text})", away=True)
    return StoreFailure(Reason.UNREADABLE, text, away=False)


def _text(exc: Exception) -> str:
    text = (str(exc) or type(exc).__name__).split("\n")[0].replace("\0", "\\0").rstrip(".")
    return text.encode("utf-8", "backslashreplace").decode()[:300]


def size_and_time(info: dict[str, Any]) -> tuple[int, int]:
    """Size in bytes and time of change in ns of what a store tells of; -1 where it does not."""
    size = info.get("size")
    when = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(when, str):
        try:
            when = datetime.datetime.fromisoformat(when)
        except ValueError:
            when = None
    if isinstance(when, datetime.datetime):
        when = (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()
    mtime = int(when * 1_000_000) * 1000 if isinstance(when, int | float) else -1
    return (int(size) if isinstance(size, int) and size >= 0 else -1), mtime


def source_error(url: str, failure: StoreFailure) -> SourceError:
    """What a failure means for a source as a whole."""
    hint = ""
    if failure.reason is Reason.UNREADABLE:
        hint = (
            "Credentials and endpoints are those of the store's own library: for S3 its files and"
            " AWS_* variables; FSSPEC_S3_ANON=true reads public buckets without any."
        )
    return SourceError(f"The source {shown(url)!r} cannot be read: {failure}.", hint=hint)
