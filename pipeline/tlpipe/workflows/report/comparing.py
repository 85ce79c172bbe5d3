"""report_comparison: backbones side by side, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlpipe.files import check_output
from tlpipe.stages.metrics import Difference
from tlpipe.stages.page import Comparison, Contender, Figure, comparison_page
from tlpipe.stages.report import write_page
from tlpipe.types import DEFAULT_SEED, PAGE_SUFFIXES, ProgressCallback
from tlpipe.version import __version__
from tlpipe.workflows.common import now
from tlpipe.workflows.compare import compare
from tlpipe.workflows.comparison import Compared, CompareResult
from tlpipe.workflows.report.figures import accuracy_figure, log_loss_figure
from tlpipe.workflows.report.options import ReportResult


def report_comparison(
    features: Sequence[str | Path],
    output: str | Path,
    *,
    speed: bool = True,
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> ReportResult:
    """Write one HTML file that compares backbones: how good each is, and what it costs.

    Parameters
    ----------
    features : sequence of str or pathlib.Path
        Two or more feature files of the same images.
    output : str or pathlib.Path
        The page to write (.html).
    speed, seed, progress
        As for ``compare``, which also says what is raised.
    overwrite : bool
        Whether an existing output may be replaced.
    """
    paths, output = [Path(path) for path in features], Path(output)
    check_output(output, overwrite=overwrite, suffixes=PAGE_SUFFIXES, inputs=paths)
    result = compare(paths, speed=speed, seed=seed, progress=progress)
    write_page(output, comparison_page(comparison_of(result)))
    return ReportResult(
        path=output,
        size_bytes=output.stat().st_size,
        count=result.common,
        shown=0,
        pictured=0,
        judged_on=result.judged_on,
        notices=result.notices,
    )


def comparison_of(result: CompareResult) -> Comparison:
    """What the page shows of a comparison."""
    files = result.files
    return Comparison(
        title=f"{len(files)} backbones compared",
        made_at=now(),
        judged_on=f"{result.judged_on}: {result.judged:,} of {result.common:,} common images",
        recommendation=result.recommendation,
        contenders=[
            _contender(file, recommended=number == result.recommended, level=result.level)
            for number, file in enumerate(files)
        ],
        rows=[
            (name, [file.metrics.per_class[k].recall for file in files])
            for k, name in enumerate(result.classes)
        ],
        provenance=[
            *((file.name, _provenance(file)) for file in files),
            (
                "Comparison",
                [
                    ("heads trained for each file", str(result.heads)),
                    ("seed", str(result.seed)),
                    ("tlpipe", __version__),
                ],
            ),
        ],
        notices=result.notices,
    )


def _contender(file: Compared, *, recommended: bool, level: float) -> Contender:
    cost = file.cost
    return Contender(
        name=file.name,
        backbone=file.backbone,
        precision=file.precision,
        accuracy=accuracy_figure(file.metrics),
        log_loss=log_loss_figure(file.metrics),
        difference=None if file.accuracy is None else _difference(file.accuracy, level),
        dim=cost.dim,
        stored_bytes=cost.stored_bytes,
        head_s=cost.head_s,
        network_bytes=cost.network_bytes,
        inference_s=cost.inference_s,
        device=cost.device,
        recommended=recommended,
    )


def _difference(found: Difference, level: float) -> Figure:
    told = "more" if found.value >= 0 else "fewer"
    meaning = (
        f"Right for {abs(100 * found.value):.2f} {told} of 100 images than the most accurate;"
        f" between {100 * found.low:+.2f} and {100 * found.high:+.2f}, so that all such intervals"
        f" hold at once with 95 % certainty (each alone with {level:.2%})."
    )
    if not found.distinguishable:
        meaning += " The two cannot be told apart on these images."
    return Figure("accuracy less that of the best", found.value, found.low, found.high, meaning)


def _provenance(file: Compared) -> list[tuple[str, str]]:
    return [
        ("backbone", file.backbone),
        ("fingerprint", file.fingerprint),
        ("precision", file.precision),
        ("decoder", file.decoder),
        ("images", f"{file.count:,}"),
        ("left out, since not all files have them", f"{file.left_out:,}"),
    ]
