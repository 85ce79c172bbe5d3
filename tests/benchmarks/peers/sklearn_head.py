"""scikit-learn's logistic regression on stored embeddings.

Call: ``sklearn_head.py FOLDER search|fit [--tamed] [--max-iter N] [--c C]``; the folder is that of
``head_data.py``. ``search`` is LogisticRegressionCV over its grid and folds, choosing by log loss;
``fit`` is one LogisticRegression. All else is scikit-learn's default. As they come, NumPy and SciPy
each bring an OpenBLAS whose threads wait for those of the other; ``--tamed`` gives SciPy's one
thread. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from head_data import read, report
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import ThreadpoolController


def tamed() -> Any:
    """One thread for SciPy's OpenBLAS, all for NumPy's."""
    controller = ThreadpoolController()
    paths = [lib["filepath"] for lib in controller.info() if "scipy.libs" in lib["filepath"]]
    return controller.select(filepath=paths).limit(limits=1)


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("mode", choices=("search", "fit"))
    parser.add_argument("--tamed", action="store_true")
    parser.add_argument("--max-iter", type=int, default=100)
    parser.add_argument("--c", type=float, default=1.0, help="of fit")
    chosen = parser.parse_args()
    data = read(chosen.folder)
    if chosen.mode == "fit":
        model = LogisticRegression(C=chosen.c, max_iter=chosen.max_iter)
    else:
        model = LogisticRegressionCV(
            Cs=data.grid,
            cv=data.folds,
            scoring="neg_log_loss",
            max_iter=chosen.max_iter,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        start = time.monotonic()
        with tamed() if chosen.tamed else contextlib.nullcontext():
            model.fit(data.x_fit, data.y_fit)
        fit_s = time.monotonic() - start
    cut_short = sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    c = chosen.c if chosen.mode == "fit" else float(np.ravel(model.C_)[0])
    most = int(np.max(model.n_iter_))
    report(
        data, model.predict_proba(data.x_judge), fit_s=fit_s, c=c, cut_short=cut_short, most=most
    )


if __name__ == "__main__":
    main()
