"""Doctor: what the machine has, what is wrong with it, and how fast it can embed at most.

Takes a device and a backbone, gives a ``Diagnosis``.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import DeviceError, SourceError, TlpipeError
from tlpipe.execution import Device, Execution
from tlpipe.files import cache_dir
from tlpipe.machine import usable_cores
from tlpipe.seams import OpenedNetwork
from tlpipe.stages.decode import quiet_pillow
from tlpipe.stages.engine import Loader
from tlpipe.stages.hardware import memory_bytes, processor
from tlpipe.stages.sample import HEIGHT, WIDTH, decoder_facts, sample_photo
from tlpipe.stages.session import open_graph, open_network, settled
from tlpipe.stages.session.facts import runtime_facts
from tlpipe.stages.session.findings import (
    Finding,
    cudnn_findings,
    findings_of,
    wheel_findings,
)
from tlpipe.stages.source import Source
from tlpipe.stages.weights import prepared_file
from tlpipe.types import DEFAULT_BACKBONE, Content, FileStat, Item, Reject
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import opened, spread
from tlpipe.workflows.pixels import decoder_of, loader, pixels_of
from tlpipe.workflows.timing import cpu_seconds, gpu_seconds

_SAMPLE = 64  # images of a source that are timed


@dataclass(frozen=True)
class Speed:
    """How fast embedding can be at most.

    Attributes
    ----------
    images : str
        What was decoded.
    decode_s : float
        Seconds of one core to load an image: read, decode, crop and resize.
    inference_s : float
        Seconds per image for the backbone: of one core on the CPU, of all GPUs together else.
    batch_size : int
        B at which that was measured.
    limit : float
        Images per second that no embedding on this machine can pass.
    limited_by : str
        "decoding", "inference" or "the GPU": what takes most of the time.
    """

    images: str
    decode_s: float
    inference_s: float
    batch_size: int
    limit: float
    limited_by: str


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found.

    Attributes
    ----------
    device : str
        What networks run on.
    usable : bool
        Whether the backbone ran there.
    provider : str
        What ran it; "" where nothing did.
    backbone : str
        Its name.
    facts : dict
        "cores", "processor", "memory_bytes", "onnxruntime", "gpus", "driver", "openvino",
        "decoder" and "cache": of the types that JSON has.
    findings : list of Finding
        What is wrong, with the cure.
    speed : Speed or None
        None where the backbone did not run.
    placement : dict of str to int
        How many of the network's operators each provider runs; empty where that is not known.
    """

    device: str
    usable: bool
    provider: str
    backbone: str
    facts: dict[str, Any]
    findings: list[Finding]
    speed: Speed | None
    placement: dict[str, int]


def doctor(
    source: Source | str | Path | None = None,
    *,
    backbone: str | Path | Card = DEFAULT_BACKBONE,
    device: Device = "auto",
    seconds: float = 2.0,
) -> Diagnosis:
    """Say what the machine has, what is wrong with it, and how fast it can embed.

    Parameters
    ----------
    source : Source, str or pathlib.Path, optional
        Images to time the decoder with; by default one made in memory.
    backbone : str, pathlib.Path or Card
    device : {"auto", "cpu", "cuda", "tensorrt"}
        What is tried out.
    seconds : float
        For how long each of decoding and inference is timed.

    Returns
    -------
    Diagnosis
        A device that cannot be used is a finding of it, not an error.

    Raises
    ------
    OptionError
        There is no such device.
    SourceError
        The source cannot be listed, or no image of it can be read.
    UnknownBackboneError, CardError, BackboneError
        The backbone is none that can be used.
    """
    execution = Execution(device)
    card = find_backbone(backbone)
    loads = _loads(source, card)
    chosen = settled(execution).device
    facts, findings = _facts(), wheel_findings()
    provider, speed = "", None
    placement: dict[str, int] = {}
    try:
        network = open_network(prepared_file(card, open_graph), execution)
        provider, placement = network.provider, dict(getattr(network, "placement", {}))
        with quiet_pillow():
            speed = _speed(loads, network, seconds, on_gpus=chosen != "cpu")
        findings += cudnn_findings() if chosen != "cpu" else []
    except DeviceError as exc:
        findings = findings_of(exc, chosen)
    except TlpipeError as exc:
        findings.append(Finding(exc.message, exc.hint))
    usable = speed is not None
    return Diagnosis(chosen, usable, provider, card.name, facts, findings, speed, placement)


def _facts() -> dict[str, Any]:
    name, extensions = processor()
    folder = cache_dir()
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return {
        "cores": {"usable": usable_cores(), "all": os.cpu_count()},
        "processor": {"name": name, "extensions": extensions},
        "memory_bytes": memory_bytes(),
        **runtime_facts(),
        "decoder": {"mode": decoder_of("auto"), **decoder_facts()},
        "cache": {"folder": str(folder), "free_bytes": shutil.disk_usage(there).free},
    }


@dataclass(frozen=True)
class _Loads:
    """Images to load, each by a call; what they are."""

    calls: Sequence[Callable[[], Any]]
    what: str


def _loads(source: Source | str | Path | None, card: Card) -> _Loads:
    how = (card.image_size, card.arithmetic, decoder_of("auto"))
    if source is None:
        pixels = pixels_of(*how)
        call = functools.partial(pixels, sample_photo(), Content(b"", FileStat()))
        return _Loads([call], f"a photo made up, {WIDTH} x {HEIGHT}")
    found = opened(source)
    load = loader(found.reader, *how)
    count = found.survey.count
    items = list(spread(found, _SAMPLE))
    calls = [functools.partial(_load, load, item) for item in items]
    return _Loads(calls, f"{len(items)} of {count} images")


def _load(load: Loader, item: Item) -> Any:
    """Pixels of an item, or why there are none."""
    read = load.fetch(item)
    return read if isinstance(read, Reject) else load.prepare(item, *read)


def _speed(loads: _Loads, network: OpenedNetwork, seconds: float, *, on_gpus: bool) -> Speed:
    images, decode_s = _timed_loads(loads, seconds)
    if not on_gpus:
        inference_s, size = cpu_seconds(network, images, seconds)
        limit = usable_cores() / (decode_s + inference_s)
        by = "decoding" if decode_s > inference_s else "inference"
    else:
        inference_s, size = gpu_seconds(network, images, seconds)
        limit = min(usable_cores() / decode_s, 1 / inference_s)
        by = "decoding" if decode_s / usable_cores() > inference_s else "the GPU"
    return Speed(loads.what, decode_s, inference_s, size, limit, by)


def _timed_loads(loads: _Loads, seconds: float) -> tuple[np.ndarray[Any, Any], float]:
    """Images (B, H, W, 3), and seconds of one core to load one."""
    results = [call() for call in loads.calls]  # once untimed: files come into memory
    images = [result for result in results if not isinstance(result, Reject)]
    if not images:
        reject = results[0]
        raise SourceError(
            f"No image could be read; of the first: {reject.detail}", hint="Name another SOURCE."
        )
    done, start, end = 0, time.thread_time(), time.perf_counter() + seconds
    while not done or time.perf_counter() < end:
        for call in loads.calls:
            call()
        done += len(loads.calls)
    return np.stack(images), (time.thread_time() - start) / done
