"""Does in a thread of its own what will be needed soon."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes a thing from the moment on when it is known to be needed. Leaving it waits for its end.

    Parameters
    ----------
    make : callable
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tlpipe-ahead")
        self._made: Future[T] | None = None

    def start(self) -> None:
        """Begin; a second time does nothing."""
        if self._made is None:
            self._made = self._pool.submit(self._make)

    def result(self) -> T:
        """What was made, when it is; raises what making it raised."""
        if self._made is None:
            return self._make()
        return self._made.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
