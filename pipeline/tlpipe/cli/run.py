"""``tlpipe run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.classify import show_classified, show_evaluated
from tlpipe.cli.embed import show_embedded
from tlpipe.cli.kinds import JOB
from tlpipe.cli.log import emit, facts_of
from tlpipe.cli.options import TOO_MANY_REJECTS
from tlpipe.cli.progress import duration, progress
from tlpipe.cli.show import say, show_line, show_survey
from tlpipe.cli.train import show_trained
from tlpipe.quantities import by_count, counted

if TYPE_CHECKING:
    from tlpipe.workflows.jobs.estimate import Estimate
    from tlpipe.workflows.jobs.job import Job


@click.command("run")
@click.argument("job", type=JOB)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be done and what it would cost, from a measured sample; write nothing.",
)
@click.pass_context
def run_command(ctx: click.Context, job: Path, dry_run: bool) -> None:
    """Run a job: a command and its settings, as a file.

    JOB is a TOML file that says what 'train', 'embed', 'train-head', 'classify' or 'evaluate' is to
    do: see docs/reference/jobs.md. All its mistakes are listed before anything is done. Beside the
    output, OUTPUT.run.json records the run: settings, versions, digests, counts and times.

    \b
    Example:
      tlpipe run nightly.toml --dry-run
      tlpipe run nightly.toml
    """
    from tlpipe import read_job, run

    found = read_job(job)
    if dry_run:
        _dry_run(found)
        return
    with progress() as report:
        done = run(found, progress=report, surveyed=show_survey)
    _SHOW[found.command](done.result)
    say(f"Recorded in {str(done.record)!r}.", "record", path=done.record)
    if done.exit_code == TOO_MANY_REJECTS:
        ctx.exit(TOO_MANY_REJECTS)


def _dry_run(job: Job) -> None:
    """Say what a job would do, and what it would cost."""
    from tlpipe import dry_run

    if job.source is not None:
        say("Measuring on a sample of the source. Nothing is written.")
    found = dry_run(job, surveyed=show_survey)
    show_line(f"Dry run of {str(job.path)!r}: {job.command}.")
    show_line(found.meaning)
    if found.rate is not None:
        show_line(
            f"Measured on {counted(found.sampled, 'image')} of {found.survey.count:,}, spread over"
            f" the source: {found.rate:,.0f} images/s on {found.provider}."
        )
    if found.rejects:
        reasons = by_count(found.rejects)
        show_line(f"Of these {found.rejects.total():,} would be rejected: {reasons}.")
    if found.seconds is not None:
        show_line(_cost(found))
    if found.output_bytes is not None:
        show_line(f"The output would have about {_size(found.output_bytes)}.")
    for notice in found.notices:
        show_line(notice)
    emit("estimate", found.meaning, job=job.settings, **facts_of(found))


def _cost(found: Estimate) -> str:
    """The wall time, with its interval."""
    images = counted(found.count, "image")
    if not found.count or found.seconds is None:
        return "No image needs the network."
    interval = " (too few images to say how sure that is)"
    if found.seconds_low is not None and found.seconds_high is not None:
        low, high = duration(found.seconds_low), duration(found.seconds_high)
        interval = f" (95 % interval {low} to {high}, if the machine stays as it is)"
    start = f"{found.start_s:.1f} s" if found.start_s < 10 else duration(found.start_s)
    return f"{images} would take about {duration(found.seconds)}{interval}, {start} of it to start."


def _size(size_bytes: int) -> str:
    """Bytes as people say them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes:,} bytes"


def _show_train(result: Any) -> None:
    show_embedded(result.embedded)
    show_trained(result.trained)


_SHOW = {
    "embed": show_embedded,
    "train": _show_train,
    "train-head": show_trained,
    "classify": show_classified,
    "evaluate": show_evaluated,
}
