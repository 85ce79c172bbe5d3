"""What an index shows to a reader that knows only HDF5, compared with what it should show."""

from __future__ import annotations

import math
from typing import Any

import h5py

from tlpipe.stages.store.content import FileContent, check_lengths
from tlpipe.stages.store.layout import COLUMNS
from tlpipe.stages.store.set_index import SetIndex, row_of
from tlpipe.stages.store.structure import dataset_damage


def shown_classes(file: h5py.File, content: FileContent) -> list[str]:
    """Names of the classes in an index.

    Raises
    ------
    ValueError
        They are not stored as they should be.
    """
    wrong = dataset_damage(file, "classes", COLUMNS["classes"], content.length)
    if wrong:
        raise ValueError(wrong)
    dataset = file["classes"]
    check_lengths(dataset, content, 0, len(dataset))
    return [text.decode() for text in dataset[:].tolist()]


def view_fault(file: h5py.File, index: SetIndex, dim: int) -> tuple[str, str]:
    """The first view that shows something else than the parts, and how; empty where all is well.

    What a view is made of is taken from its description: nothing that it points to is opened.
    """
    for name, count, pieces in index.views():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return name, "the index does not have it"
        dataset = h5py.h5d.open(file.id, name.encode())
        plist = dataset.get_create_plist()
        if plist.get_layout() != h5py.h5d.VIRTUAL:
            return name, "it is no view of the parts"
        row, dtype = row_of(name, dim)
        right = [
            (index.source(part), name, (start, *(0 for _ in row)), (rows, *row))
            for start, rows, part in pieces
        ]
        if [_piece(plist, number) for number in range(plist.get_virtual_count())] != right:
            return name, "the index shows other rows than those of the parts"
        if dataset.shape != (count, *row) or dataset.dtype != dtype:
            return name, f"the index has the type {dataset.dtype} and the shape {dataset.shape}"
    return "", ""


def _piece(plist: Any, number: int) -> tuple[Any, ...]:
    """File, dataset, first place and shape of a piece of a view; no shape where it has gaps."""
    space, source = plist.get_virtual_vspace(number), plist.get_virtual_srcspace(number)
    first, last = space.get_select_bounds()
    shape = tuple(b - a + 1 for a, b in zip(first, last, strict=True))
    whole = math.prod(shape) == space.get_select_npoints()
    whole = whole and source.get_select_type() == h5py.h5s.SEL_ALL
    names = plist.get_virtual_filename(number), plist.get_virtual_dsetname(number)
    return *names, first, shape if whole else ()
