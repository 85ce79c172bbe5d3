"""LinearProbe: a linear classifier of embeddings."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from tlpipe.errors import OptionError, TrainingDataError
from tlpipe.sklearn.fitting import Wanted, fit_head, log_softmax
from tlpipe.sklearn.folds import plan_folds
from tlpipe.stages.head import SCALINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Multinomial logistic regression on embeddings, as ``tlpipe train-head`` trains it.

    C and the scaling of the embeddings are chosen by cross-validation for the least log loss, and
    so is the temperature that calibrates the probabilities; then all rows train the head.

    Parameters
    ----------
    C : float or None
        Inverse strength of the L2 penalty, as scikit-learn's; None to have it chosen.
    scaling : {"auto", "raw", "standardised", "unit"}
        Whether embeddings are taken as they are, each dimension is standardised, or each embedding
        is brought to length 1; "auto" to have it chosen.
    class_weight : dict, "balanced" or None
        Weights of the classes, as scikit-learn's.
    cv : int, splitter or iterable of pairs of row numbers
        Folds to choose with. Of a number, stratified, shuffled ones; fewer where the classes have
        fewer rows.
    random_state : int, RandomState or None
        Shuffles the folds.

    Attributes
    ----------
    classes_ : array (K,)
    coef_ : float64 array (1, D) for two classes, else (K, D)
        For embeddings as they are (brought to unit length where `normalise_` says so): scaling and
        temperature are in them.
    intercept_ : float64 array (1,) or (K,)
    C_, scaling_
        The settings that were chosen or given.
    temperature_ : float
        What the logits have been divided by; 1 where no row could be held out.
    normalise_ : bool
    n_folds_ : int
        Folds that chose; 0 where each class has one row: C is then what suits most embeddings.
    n_features_in_ : int
        D.
    feature_names_in_ : array (D,) of str
        Where X was a table with named columns.

    Examples
    --------
    >>> from tlpipe.sklearn import LinearProbe
    >>> probe = LinearProbe().fit([[0.0], [0.2], [1.0], [1.3]], ["low", "low", "high", "high"])
    >>> probe.predict([[1.1]]).tolist()
    ['high']
    """

    def __init__(
        self,
        C: float | None = None,  # noqa: N803
        *,
        scaling: Literal["auto", "raw", "standardised", "unit"] = "auto",
        class_weight: Any = None,
        cv: Any = 5,
        random_state: Any = 0,
    ) -> None:
        self.C = C
        self.scaling = scaling
        self.class_weight = class_weight
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """Choose the settings that are open, then train on all rows.

        Parameters
        ----------
        X : array (N, D)
            Embeddings, finite, dense.
        y : array (N,)
            Labels of any type that scikit-learn takes.
        groups : array (N,), optional
            Rows of one group are never on both sides of a fold.

        Raises
        ------
        ValueError
            X or y are not what scikit-learn takes for a classifier.
        OptionError
            A parameter makes no sense.
        TrainingDataError
            There is one class only.
        """
        self._check()
        vectors, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        if groups is not None:
            groups = np.asarray(groups)
            check_consistent_length(y, groups)
        classes, inverse = np.unique(y, return_inverse=True)
        labels: NDArray[np.int32] = inverse.astype(np.int32)
        if classes.size < 2:
            raise TrainingDataError(
                f"All {labels.size} rows are of one class, {classes.tolist()[0]!r}; a classifier"
                " needs at least two classes.",
                hint="Add rows of another class.",
            )
        weights = None
        if self.class_weight is not None:
            weights = compute_class_weight(self.class_weight, classes=classes, y=y)
        scaling = None if self.scaling == "auto" else self.scaling
        folds = plan_folds(vectors, labels, groups, self.cv, self.random_state)
        c = None if self.C is None else float(self.C)
        head = fit_head(vectors, labels, folds, Wanted(c, scaling, weights))
        coefficients, intercept = head.weights.T, head.bias
        if classes.size == 2:
            coefficients = coefficients[1:] - coefficients[:1]
            intercept = intercept[1:] - intercept[:1]
        self.classes_ = classes
        self.coef_, self.intercept_ = coefficients, intercept
        self.C_, self.scaling_, self.temperature_ = head.c, head.scaling, head.temperature
        self.normalise_ = head.normalise
        self.n_folds_ = len(folds)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated logits (N, K); of two classes, those of the second against the first (N,)."""
        check_is_fitted(self)
        vectors = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        vectors = vectors.astype(np.float64, copy=False)
        if self.normalise_:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths > 0, lengths, 1.0)
        logits: NDArray[np.float64] = vectors @ self.coef_.T + self.intercept_
        return logits[:, 0] if self.classes_.size == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated probabilities (N, K), the classes in the order of `classes_`."""
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Logarithms of the probabilities (N, K)."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.column_stack([np.zeros_like(logits), logits])
        return log_softmax(logits)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Most probable class of each row, (N,)."""
        logits = self.decision_function(X)
        best = (logits > 0).astype(np.intp) if logits.ndim == 1 else logits.argmax(axis=1)
        return self.classes_[best]

    def _check(self) -> None:
        c: Any = self.C
        is_number = isinstance(c, numbers.Real) and not isinstance(c, bool)
        if c is not None and not (is_number and 0 < c < float("inf")):
            raise OptionError(f"C is {c!r}; it must be a number above 0, or None.")
        if self.scaling not in ("auto", *SCALINGS):
            raise OptionError(
                f"The scaling {self.scaling!r} is unknown.",
                hint=f"Use one of {['auto', *SCALINGS]}.",
            )
