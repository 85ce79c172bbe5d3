"""ImageEmbedder: a transformer from images to embeddings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from tlpipe.card import Card
from tlpipe.errors import ImageError, OptionError
from tlpipe.execution import Device
from tlpipe.sklearn.images import as_images, distinct
from tlpipe.types import DEFAULT_BACKBONE, DecodeMode, Outcome
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.embed_images import embed_images
from tlpipe.workflows.run_options import RunOptions

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

ON_ERROR = ("raise", "nan")


class ImageEmbedder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Embeds images with a frozen backbone, as ``tlpipe embed`` does.

    It learns nothing: `fit` checks what it is given, and `transform` may be called without it.
    The vector of a path is the one that a feature file holds for it.

    Parameters
    ----------
    backbone : str, pathlib.Path or Card
        A name of the catalogue, the path of a card (.toml) or of a network (.onnx), or a card.
    device : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" is CUDA where the machine has an NVIDIA GPU, else the CPU.
    batch_size : int or None
        Images per call of the network; None for what suits it and the device.
    threads : int or None
        Threads that decode and infer; None for one per usable core. Where scikit-learn runs several
        processes (``n_jobs``), set it to 1.
    decode : {"auto", "exact"}
        "exact" decodes every pixel of a large JPEG and has Pillow resize; "auto" is faster.
    on_error : {"raise", "nan"}
        What becomes of an image that cannot be used: an ``ImageError`` that names it and says why,
        or a row of NaN.

    Notes
    -----
    Images in memory, given as arrays or as images of Pillow's, are cropped and resized as decoded
    files are. "auto" decodes large JPEG files at a fraction of their size, so that their vector
    may differ a little from that of the same image in memory.

    Examples
    --------
    >>> from tlpipe.sklearn import ImageEmbedder
    >>> vectors = ImageEmbedder().transform(["a.jpg", "b.png"])  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str | Path | Card = DEFAULT_BACKBONE,
        *,
        device: Device = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        decode: DecodeMode = "auto",
        on_error: Literal["raise", "nan"] = "raise",
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.batch_size = batch_size
        self.threads = threads
        self.decode = decode
        self.on_error = on_error

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Check the parameters, the backbone's name and that X holds images; read none of them.

        Parameters
        ----------
        X : sequence or array
            As for ``transform``.
        y : object
            Ignored.

        Raises
        ------
        TypeError, ImageError, OptionError, UnknownBackboneError, CardError, BackboneError
        """
        self._options()
        find_backbone(self.backbone)
        as_images(X)
        return self

    def transform(self, X: Any) -> Float32Array:  # noqa: N803
        """Embed images, each once, on all cores.

        Parameters
        ----------
        X : sequence or array
            Paths, as a sequence or an array (N,) or (N, 1); or images: of Pillow's, uint8 arrays
            (H, W, 3), (H, W, 4) or (H, W), or one uint8 array (N, H, W, 3).

        Returns
        -------
        float32 array (N, D)

        Raises
        ------
        TypeError
            X is no sequence of images.
        ImageError
            It is empty, an element is no image; or an image cannot be used, and `on_error` is
            "raise".
        OptionError
            A parameter makes no sense.
        UnknownBackboneError, CardError, WeightsError, BackboneError
            The backbone cannot be had or run.
        DeviceError
            The device asked for cannot be used.
        """
        options = self._options()
        images, numbers = distinct(as_images(X))
        outcomes = embed_images(images, backbone=self.backbone, options=options)
        dim = self._n_features_out
        vectors = np.full((len(images), dim), np.nan, np.float32)
        with closing(outcomes):
            for row, outcome in enumerate(outcomes):
                if outcome.reject is None:
                    vectors[row] = outcome.values["embeddings"]
                elif self.on_error == "raise":
                    raise _refusal(outcome, numbers.index(row))
        return vectors if len(images) == len(numbers) else vectors[numbers]

    @property
    def _n_features_out(self) -> int:
        """D, for the names of the features."""
        return find_backbone(self.backbone).output.dim

    def _options(self) -> RunOptions:
        if self.on_error not in ON_ERROR:
            raise OptionError(
                f"on_error is {self.on_error!r}, which is unknown.",
                hint=f"Use one of {list(ON_ERROR)}.",
            )
        return RunOptions(
            device=self.device,
            batch_size=self.batch_size,
            threads=self.threads,
            decode=self.decode,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _refusal(outcome: Outcome, number: int) -> ImageError:
    reject = outcome.reject
    assert reject is not None, "only rejects are refused"
    path = outcome.item.place
    name = f"Image {number} of X" if path is None else f"{path!r} (image {number} of X)"
    return ImageError(
        f"{name} cannot be used: {reject.reason.value}. {reject.detail}",
        hint='With on_error="nan" such images get a row of NaN.',
    )
