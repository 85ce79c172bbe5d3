"""tlpipe: from a folder of labelled images to a classifier you can ship.

The verbs of the command line, as functions of the same names: ``embed``, ``train_head``, ``train``,
``classify``, ``evaluate``, ``verify``, ``inspect``, and for feature files ``verify_features``,
``repair``, ``export_features``, ``import_features``, ``merge``, ``split``, ``audit``, ``compare``,
``report`` and ``report_comparison``. Importing this package loads none of the heavy libraries; a
verb loads what it needs when it is first used.

Examples
--------
>>> import tlpipe
>>> tlpipe.embed("photos", "features.h5")  # doctest: +SKIP
>>> tlpipe.train_head("features.h5", "classifier.onnx")  # doctest: +SKIP
>>> tlpipe.classify("classifier.onnx", "new", "predictions.csv")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlpipe.card import Card as Card
    from tlpipe.catalogue import all_cards as all_cards
    from tlpipe.catalogue import find_card as find_card
    from tlpipe.errors import TlpipeError as TlpipeError
    from tlpipe.stages.predictions import Columns as Columns
    from tlpipe.stages.source import Source as Source
    from tlpipe.stages.source import open_source as source  # noqa: F401  (the public name)
    from tlpipe.types import Progress as Progress
    from tlpipe.version import __version__ as __version__
    from tlpipe.workflows.audit import audit as audit
    from tlpipe.workflows.audit_result import AuditResult as AuditResult
    from tlpipe.workflows.backbones import find_backbone as find_backbone
    from tlpipe.workflows.check import CheckResult as CheckResult
    from tlpipe.workflows.check import check_backbone as check_backbone
    from tlpipe.workflows.classify import Cached as Cached
    from tlpipe.workflows.classify import classify as classify
    from tlpipe.workflows.classify_run import ClassifyResult as ClassifyResult
    from tlpipe.workflows.compare import compare as compare
    from tlpipe.workflows.comparison import CompareResult as CompareResult
    from tlpipe.workflows.doctor import Diagnosis as Diagnosis
    from tlpipe.workflows.doctor import doctor as doctor
    from tlpipe.workflows.embed import embed as embed
    from tlpipe.workflows.embed_result import EmbedResult as EmbedResult
    from tlpipe.workflows.evaluate import EvaluateResult as EvaluateResult
    from tlpipe.workflows.evaluate import evaluate as evaluate
    from tlpipe.workflows.export_features import ExportResult as ExportResult
    from tlpipe.workflows.export_features import export_features as export_features
    from tlpipe.workflows.import_features import ImportResult as ImportResult
    from tlpipe.workflows.import_features import import_features as import_features
    from tlpipe.workflows.inspect import Inspection as Inspection
    from tlpipe.workflows.inspect import inspect as inspect
    from tlpipe.workflows.jobs.estimate import Estimate as Estimate
    from tlpipe.workflows.jobs.estimate import dry_run as dry_run
    from tlpipe.workflows.jobs.job import Job as Job
    from tlpipe.workflows.jobs.reading import read_job as read_job
    from tlpipe.workflows.jobs.running import JobResult as JobResult
    from tlpipe.workflows.jobs.running import run as run
    from tlpipe.workflows.merge import MergeResult as MergeResult
    from tlpipe.workflows.merge import merge as merge
    from tlpipe.workflows.models import export_backbone as export_backbone
    from tlpipe.workflows.network import BackboneOptions as BackboneOptions
    from tlpipe.workflows.own_cards import add_backbone as add_backbone
    from tlpipe.workflows.own_cards import remove_backbone as remove_backbone
    from tlpipe.workflows.pull import pull_backbone as pull_backbone
    from tlpipe.workflows.repair import repair as repair
    from tlpipe.workflows.report.comparing import report_comparison as report_comparison
    from tlpipe.workflows.report.making import report as report
    from tlpipe.workflows.report.options import ReportOptions as ReportOptions
    from tlpipe.workflows.report.options import ReportResult as ReportResult
    from tlpipe.workflows.run_options import RunOptions as RunOptions
    from tlpipe.workflows.run_options import UpdateOptions as UpdateOptions
    from tlpipe.workflows.split import SplitReport as SplitReport
    from tlpipe.workflows.split import SplitResult as SplitResult
    from tlpipe.workflows.split import check_splits as check_splits
    from tlpipe.workflows.split import split as split
    from tlpipe.workflows.split_options import SplitOptions as SplitOptions
    from tlpipe.workflows.train import TrainRun as TrainRun
    from tlpipe.workflows.train import train as train
    from tlpipe.workflows.train_head import TrainResult as TrainResult
    from tlpipe.workflows.train_head import train_head as train_head
    from tlpipe.workflows.train_options import TrainOptions as TrainOptions
    from tlpipe.workflows.verify import VerifyResult as VerifyResult
    from tlpipe.workflows.verify import verify as verify
    from tlpipe.workflows.verify_features import verify_features as verify_features

# Where each public name lives; a test compares this with the imports above.
_HOMES = {
    "AuditResult": "workflows.audit_result",
    "BackboneOptions": "workflows.network",
    "CheckResult": "workflows.check",
    "add_backbone": "workflows.own_cards",
    "check_backbone": "workflows.check",
    "find_backbone": "workflows.backbones",
    "pull_backbone": "workflows.pull",
    "remove_backbone": "workflows.own_cards",
    "Cached": "workflows.classify",
    "Card": "card",
    "ClassifyResult": "workflows.classify_run",
    "Columns": "stages.predictions",
    "CompareResult": "workflows.comparison",
    "Diagnosis": "workflows.doctor",
    "EmbedResult": "workflows.embed_result",
    "Estimate": "workflows.jobs.estimate",
    "EvaluateResult": "workflows.evaluate",
    "ExportResult": "workflows.export_features",
    "ImportResult": "workflows.import_features",
    "Inspection": "workflows.inspect",
    "Job": "workflows.jobs.job",
    "JobResult": "workflows.jobs.running",
    "MergeResult": "workflows.merge",
    "Progress": "types",
    "ReportOptions": "workflows.report.options",
    "ReportResult": "workflows.report.options",
    "RunOptions": "workflows.run_options",
    "Source": "stages.source",
    "SplitOptions": "workflows.split_options",
    "SplitReport": "workflows.split",
    "SplitResult": "workflows.split",
    "TlpipeError": "errors",
    "TrainOptions": "workflows.train_options",
    "TrainResult": "workflows.train_head",
    "TrainRun": "workflows.train",
    "UpdateOptions": "workflows.run_options",
    "VerifyResult": "workflows.verify",
    "__version__": "version",
    "all_cards": "catalogue",
    "audit": "workflows.audit",
    "check_splits": "workflows.split",
    "classify": "workflows.classify",
    "compare": "workflows.compare",
    "doctor": "workflows.doctor",
    "dry_run": "workflows.jobs.estimate",
    "embed": "workflows.embed",
    "evaluate": "workflows.evaluate",
    "export_backbone": "workflows.models",
    "export_features": "workflows.export_features",
    "find_card": "catalogue",
    "import_features": "workflows.import_features",
    "inspect": "workflows.inspect",
    "merge": "workflows.merge",
    "read_job": "workflows.jobs.reading",
    "repair": "workflows.repair",
    "report": "workflows.report.making",
    "report_comparison": "workflows.report.comparing",
    "run": "workflows.jobs.running",
    "source": "stages.source:open_source",
    "split": "workflows.split",
    "train": "workflows.train",
    "train_head": "workflows.train_head",
    "verify": "workflows.verify",
    "verify_features": "workflows.verify_features",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, original = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"tlpipe.{home}"), original or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
