"""What one thread does with a group of items: decodes them, and infers them in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.seams import Network
from tlpipe.stages.engine.loader import Fetched, Loader
from tlpipe.stages.engine.sizes import BatchSizes
from tlpipe.stages.engine.watch import Span, Watch
from tlpipe.types import Content, Item, Outcome, Reason, Reject, Stage, Twin

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

Settle = Callable[[bytes, "Outcome | BaseException"], None]
"""Told what became of each content that was decoded, by its SHA-256; called from any thread."""

Task = tuple[Item, Callable[[], Fetched]]
"""An item, and what gives its content."""

_Loaded = tuple["UInt8Array | Twin | Reject", Content | None]
_Inferred = tuple[dict[str, Any], list[str]]


class Worker:
    """Infers groups; called from several threads.

    Parameters
    ----------
    loader : Loader
    network : Network
    settle : callable
    watch : Watch
    sizes : BatchSizes
    """

    def __init__(
        self, loader: Loader, network: Network, settle: Settle, watch: Watch, sizes: BatchSizes
    ) -> None:
        self._loader, self._network, self._settle = loader, network, settle
        self._watch, self._sizes = watch, sizes
        self._stop = threading.Event()
        self._own = threading.local()

    def stop(self) -> None:
        """Begin no more: nobody wants what is under way."""
        self._stop.set()

    def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes of a group, in its order."""
        loaded: list[_Loaded] = []
        spans: list[Span] = []
        thread = threading.get_ident()
        begun = time.perf_counter()
        try:
            for item, fetched in tasks:
                if self._stop.is_set():
                    return []
                loaded.append(self._load(item, fetched, spans, thread))
            values = self._infer([p for p, _ in loaded if isinstance(p, np.ndarray)], spans, thread)
        except BaseException as exc:
            for found, content in loaded:
                if content is not None and not isinstance(found, Reject):
                    self._settle(content.sha256, exc)
            raise
        self._watch.add(spans)
        self._sizes.group_took(len(tasks), time.perf_counter() - begun)
        return self._outcomes([item for item, _ in tasks], loaded, values)

    def _load(
        self, item: Item, fetched: Callable[[], Fetched], spans: list[Span], thread: int
    ) -> _Loaded:
        start = time.perf_counter()
        read = fetched()
        stop = time.perf_counter()
        spans.append(Span("read", start, stop, thread))
        if isinstance(read, Reject):
            return read, None
        raw, content = read
        found = self._loader.prepare(item, raw, content)
        spans.append(Span("decode", stop, time.perf_counter(), thread))
        return found, content

    def _infer(self, pixels: list[UInt8Array], spans: list[Span], thread: int) -> list[_Inferred]:
        """Values of each image, and the outputs in which they are not finite."""
        inferred: list[_Inferred] = []
        size = self._sizes.next()
        while len(inferred) < len(pixels):
            part = pixels[len(inferred) : len(inferred) + size]
            start = time.perf_counter()
            values = self._network.run(np.stack(part, out=self._buffer(part)))
            stop = time.perf_counter()
            spans.append(Span("infer", start, stop, thread, len(part)))
            if len(part) == size:
                self._sizes.took(size, stop - start)
            inferred += _by_image(values, len(part))
        return inferred

    def _buffer(self, pixels: list[UInt8Array]) -> UInt8Array:
        """Memory for a call, used again for the next one of this thread."""
        buffer: UInt8Array | None = getattr(self._own, "buffer", None)
        shape = pixels[0].shape
        if buffer is None or len(buffer) < len(pixels) or buffer.shape[1:] != shape:
            buffer = self._own.buffer = np.empty((len(pixels), *shape), np.uint8)
        return buffer[: len(pixels)]

    def _outcomes(
        self, items: list[Item], loaded: list[_Loaded], inferred: list[_Inferred]
    ) -> list[Outcome]:
        results = iter(inferred)
        outcomes: list[Outcome] = []
        for item, (found, content) in zip(items, loaded, strict=True):
            if isinstance(found, Reject):
                outcomes.append(Outcome(item, reject=found))
                continue
            assert content is not None, "what was read has content"
            if isinstance(found, Twin):
                outcomes.append(Outcome(item, content, twin=found))
                continue
            values, broken = next(results)
            if broken:
                outcome = Outcome(item, reject=_non_finite(broken, content))
            else:
                outcome = Outcome(item, content, values)
            self._settle(content.sha256, outcome)
            outcomes.append(outcome)
        return outcomes


def _by_image(values: dict[str, Any], count: int) -> list[_Inferred]:
    """What the outputs (B, ...) hold of each image, and the names of those that are not finite."""
    finite = {
        name: np.isfinite(value).reshape(count, -1).all(axis=1) for name, value in values.items()
    }
    return [
        (
            {name: value[row] for name, value in values.items()},
            [name for name, rows in finite.items() if not rows[row]],
        )
        for row in range(count)
    ]


def _non_finite(names: list[str], content: Content) -> Reject:
    detail = f"The network gave NaN or infinity in {names}."
    return Reject(Stage.BACKBONE, Reason.NON_FINITE, detail, content.stat)
