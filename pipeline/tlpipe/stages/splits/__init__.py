"""Splits: which rows train, choose and judge; and the assignment of rows to splits."""

from tlpipe.stages.splits.assign import assign_splits, group_number
from tlpipe.stages.splits.plan import (
    FOLDS,
    HOLD_OUT,
    MIN_TRAIN,
    Plan,
    plan_splits,
    stratified_folds,
)

__all__ = [
    "FOLDS",
    "HOLD_OUT",
    "MIN_TRAIN",
    "Plan",
    "assign_splits",
    "group_number",
    "plan_splits",
    "stratified_folds",
]
