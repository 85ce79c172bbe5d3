"""Are archives as fast as the folder that was packed? Run: ``make bench-sources SOURCE=folder``.

Packs up to ``--images`` of a folder's images as a tar file, a zip file (stored) and a Parquet table
with the images' bytes (the layout of Hugging Face; measured where that kind of source is there).
Each round does the same with each kind, in another order each time: list all items with their
stats; read and hash all of them; and both. Rates are given as ratios to the folder within a round,
and the median over the rounds. At last the whole of ``tlpipe embed`` with the default backbone,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from image_set import embed_command, link

from tlpipe.errors import SourceError
from tlpipe.seams import Reader
from tlpipe.stages.source import Source, open_source
from tlpipe.types import Item, Reject
from tlpipe.workflows.pixels import fetching


def pack_tar(folder: Path, names: list[str], path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(folder / name, name)


def pack_zip(folder: Path, names: list[str], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(folder / name, name)


def pack_parquet(folder: Path, names: list[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.string())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, len(names), 100):
            rows = [
                {
                    "image": {"bytes": (folder / name).read_bytes(), "path": name},
                    "label": name.split("/")[0],
                }
                for name in names[start : start + 100]
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))


KINDS: dict[str, Callable[[Path, list[str], Path], None]] = {
    "tar": pack_tar,
    "zip": pack_zip,
    "parquet": pack_parquet,
}


def linked(source: Path, folder: Path, most: int) -> list[str]:
    """Link the first images of each class into a folder; their names in order."""
    items = list(open_source(source).items())
    if len(items) > most:
        items = [items[i * len(items) // most] for i in range(most)]
    for item in items:
        path = folder / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        link(Path(item.place), path)
    return [item.key for item in items]


def usable(path: Path, expected: int) -> bool:
    """Whether this tlpipe takes a file as a source of all the images."""
    try:
        return open_source(path).survey.count == expected
    except SourceError as exc:
        print(f"{path.name} is not measured: {exc.message}")
        return False


def listed(path: Path) -> tuple[Source, list[Item]]:
    source = open_source(path)
    items: list[Item] = []
    for block in source.scan(stats=True):
        items += [block.item(index) for index in range(len(block))]
    return source, items


def read_all(reader: Reader, items: list[Item]) -> None:
    fetch = fetching(reader)
    for item in items:
        if isinstance(fetch(item), Reject):
            raise AssertionError(f"{item.key} cannot be read")


def measured(path: Path, expected: int) -> tuple[float, float]:
    """Seconds to list, and to read and hash."""
    start = time.perf_counter()
    source, items = listed(path)
    between = time.perf_counter()
    if len(items) != expected:
        raise AssertionError(f"{path} holds {len(items)} images")
    read_all(source.reader, items)
    return between - start, time.perf_counter() - between


def embedded(path: Path, work: Path) -> float:
    start = time.perf_counter()
    command = embed_command(path, work / f"{path.name}.h5", "fp32")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def show(what: str, rounds: list[dict[str, float]], count: int) -> None:
    print(f"\n{what}, median of {len(rounds)} rounds")
    for name in rounds[0]:
        rate = statistics.median(count / row[name] for row in rounds)
        ratio = statistics.median(row["folder"] / row[name] for row in rounds)
        low = min(row["folder"] / row[name] for row in rounds)
        print(f"  {name:8} {rate:10,.0f} images/s   {ratio:5.2f} of the folder (least {low:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9, help="of listing and reading")
    parser.add_argument("--embeds", type=int, default=3, help="rounds of the whole of embed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "folder"
        names = linked(arguments.source, folder, arguments.images)
        paths = {"folder": folder}
        for kind, pack in KINDS.items():
            path = work / f"packed.{kind}"
            pack(folder, names, path)
            if usable(path, len(names)):
                paths[kind] = path
        size = statistics.mean((folder / name).stat().st_size for name in names)
        print(f"{len(names):,} images of {size / 1e3:.0f} KB")
        order = list(paths)
        lists, reads, boths, embeds = [], [], [], []
        for number in range(arguments.rounds + 1):
            turn = order[number % len(order) :] + order[: number % len(order)]
            found = {kind: measured(paths[kind], len(names)) for kind in turn}
            if number:  # the first warms up
                lists.append({kind: found[kind][0] for kind in order})
                reads.append({kind: found[kind][1] for kind in order})
                boths.append({kind: sum(found[kind]) for kind in order})
        show("List, with stats", lists, len(names))
        show("Read and hash", reads, len(names))
        show("Both", boths, len(names))
        for number in range(arguments.embeds):
            turn = order[number % len(order) :] + order[: number % len(order)]
            seconds = {kind: embedded(paths[kind], work) for kind in turn}
            embeds.append({kind: seconds[kind] for kind in order})
        if embeds:
            show("tlpipe embed, start-up included", embeds, len(names))


if __name__ == "__main__":
    main()
