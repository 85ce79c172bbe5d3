"""Where the batch goes when an operator rearranges a tensor without computing.

The rules of ``axes`` for such operators: each takes a ``Step``, gives the ``Axis`` of its result.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tlpipe.graph.axis import Axis, Step
from tlpipe.graph.index import integer, integers


def transpose(step: Step) -> Axis:
    """The axis goes where the permutation puts it."""
    rank = len(step.shape(0))
    order = integers(step.node, "perm") or list(range(rank))[::-1]
    return replace(step.data, index=order.index(step.data.index))


def reshape(step: Step) -> Axis:
    """Row-major order decides: the same number of elements stand before the batch as before."""
    axis, shape, out, batch = step.data, step.shape(0), step.out, step.batch
    ahead = math.prod(shape[: axis.index]) * axis.before
    places = []
    for index, size in enumerate(out):
        prefix = math.prod(out[:index])
        if ahead % prefix == 0 and size % (ahead // prefix * batch) == 0:
            before = ahead // prefix
            places.append(Axis(index, before, size // (before * batch)))
    alone = [place for place in places if place.factor == 1]
    starts = [p for p in places if p.before == 1 and (p.index < len(out) - 1 or p.after == 1)]
    ends = [place for place in places if place.after == 1]
    same = [place for place in alone if place.index == axis.index]
    for likely in (same, alone, starts, ends, places):
        if likely:
            return likely[0]
    raise step.stuck(f"from {list(shape)} to {list(out)} tears images apart")


def flatten(step: Step) -> Axis:
    """Two axes remain; the batch is in one of them."""
    axis, shape = step.data, step.shape(0)
    cut = integer(step.node, "axis", 1)
    cut += len(shape) if cut < 0 else 0
    start, index = (0, 0) if axis.index < cut else (cut, 1)
    end = cut if axis.index < cut else len(shape)
    before = math.prod(shape[start : axis.index]) * axis.before
    after = math.prod(shape[axis.index + 1 : end]) * axis.after
    return Axis(index, before, after)


def squeeze(step: Step) -> Axis:
    """Axes of one element go."""
    axis, shape = step.data, step.shape(0)
    gone = step.constants_of(1, "axes") or [i for i, n in enumerate(shape) if n == 1]
    gone = [at % len(shape) for at in gone]
    if axis.index in gone:
        raise step.stuck("drops the batch")
    return replace(axis, index=axis.index - sum(at < axis.index for at in gone))


def unsqueeze(step: Step) -> Axis:
    """Axes of one element come."""
    rank = len(step.out)
    new = {at % rank for at in step.constants_of(1, "axes")}
    old = [at for at in range(rank) if at not in new]
    return replace(step.data, index=old[step.data.index])


def expand(step: Step) -> Axis:
    """Axes come in front."""
    axis = step.data
    return replace(axis, index=axis.index + len(step.out) - len(step.shape(0)))


def tile(step: Step) -> Axis:
    """Anything is repeated but the batch."""
    axis = step.data
    if step.shape(0)[axis.index] != step.out[axis.index]:
        raise step.stuck("repeats the batch")
    return axis
