"""``tlpipe export-web``."""

from __future__ import annotations

from pathlib import Path

import click

from tlpipe.cli.log import facts_of
from tlpipe.cli.options import PATH, output_option, overwrite_option
from tlpipe.cli.progress import progress
from tlpipe.cli.show import say
from tlpipe.quantities import counted

RUNTIME_VARIABLE = "TLPIPE_ORT_WEB"


@click.command("export-web")
@click.argument("classifier", type=PATH)
@output_option("The folder to write.")
@click.option(
    "--runtime",
    type=PATH,
    metavar="FILE.tgz|FOLDER",
    envvar=RUNTIME_VARIABLE,
    show_envvar=True,
    help="The package onnxruntime-web, as npm's registry gives it or unpacked.  [default: it is"
    " downloaded once, and checked]",
)
@overwrite_option
def export_web_command(
    classifier: Path, output: Path, runtime: Path | None, overwrite: bool
) -> None:
    """Make a web page that runs a classifier in the browser.

    Whoever opens it chooses, drops or pastes pictures and sees what 'tlpipe classify' would say of
    them. Pictures stay in the browser. The folder is static: any web server can serve it.

    \b
    Example:
      tlpipe export-web classifier.onnx -o site/
      python -m http.server -d site/
    """
    from tlpipe import export_web

    with progress() as report:
        result = export_web(
            classifier, output, runtime=runtime, overwrite=overwrite, progress=report
        )
    say(
        f"Wrote {str(result.path)!r}: {counted(result.files, 'file')},"
        f" {result.size_bytes / 1e6:,.1f} MB, with onnxruntime-web {result.runtime_version}.",
        "result",
        **facts_of(result),
    )
    say(
        "It needs a web server (opened from a disk it does not run). For example:"
        f" python -m http.server -d {str(result.path)!r}, and then open http://localhost:8000/."
    )
