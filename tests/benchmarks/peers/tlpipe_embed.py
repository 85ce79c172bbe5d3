"""tlpipe's own ``embed``, or ``classify``, through the functions of its public API.

Call: ``tlpipe_embed.py FOLDER OUTPUT.npy PRECISION``, or with a CLASSIFIER.onnx behind that, which
is then run in its place (and writes no vectors). Prints, besides what all scripts print, the
seconds from the start of the process to the first embedding.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from measure import START, Marks, arguments

import tlpipe

BATCH = 8  # of marks: a multiple of the batches on CPUs, in which results come out


def main() -> None:
    """Embed or classify the folder."""
    folder, output, (precision, *classifier) = arguments()
    marks, first, total = Marks(), [], [0]
    options = tlpipe.RunOptions(device="cpu", precision=precision)

    def mark(at: tlpipe.Progress) -> None:
        if at.stage not in ("embed", "classify"):  # calibration, for one
            return
        if not first:
            first.append(time.monotonic() - START)
        if at.done % BATCH == 0 or at.done == at.total:
            marks.mark(at.done)
        total[0] = at.done

    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        if classifier:
            predictions = Path(scratch, "predictions.csv")
            tlpipe.classify(classifier[0], folder, predictions, options=options, progress=mark)
        else:
            tlpipe.embed(folder, Path(scratch, "features.h5"), options=options, progress=mark)
        marks.report(total[0], seconds_first=first[0])


if __name__ == "__main__":
    main()
