"""The input through which a network takes images: its name, layout, size and type.

Takes an ``onnx.ModelProto``, gives an ``ImageInput``; what the file leaves open is asked for, not
guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto

from tlpipe.errors import BackboneError
from tlpipe.graph.index import Index

if TYPE_CHECKING:
    from tlpipe.types import Float32Array, Preprocess

DTYPES: dict[int, Literal["float32", "float16", "float64", "uint8"]] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}
"""Types of an image input that are understood."""

CHANNELS = (3, 1)


@dataclass(frozen=True)
class ImageInput:
    """Where images go in.

    Attributes
    ----------
    tensor : str
    layout : {"NCHW", "NHWC"}
    height, width : int
        Pixels.
    channels : int
        3, or 1 for grey images.
    dtype : {"float32", "float16", "float64", "uint8"}
    batch : int
        The batch size it states; 0 where that is free.
    """

    tensor: str
    layout: Literal["NCHW", "NHWC"]
    height: int
    width: int
    channels: int
    dtype: Literal["float32", "float16", "float64", "uint8"]
    batch: int

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """Shape of a batch of `count` images."""
        if self.layout == "NCHW":
            return count, self.channels, self.height, self.width
        return count, self.height, self.width, self.channels


def find_input(
    model: onnx.ModelProto, name: str | None = None, size: tuple[int, int] | None = None
) -> ImageInput:
    """The input that takes images.

    Parameters
    ----------
    model : onnx.ModelProto
        Tidied; its other inputs are none of this function's business.
    name : str, optional
        Which input; needed where there are several.
    size : tuple of int, optional
        Height and width in pixels; needed where the file leaves them open, and it must agree where
        it does not.

    Raises
    ------
    BackboneError
        There is no such input, there are several, or its shape is not that of images.
    """
    inputs = {value.name: value for value in Index(model.graph).inputs}
    if name is None and len(inputs) == 1:
        name = next(iter(inputs))
    if name is None or name not in inputs:
        stated = [f"{key} {_sizes(value)}" for key, value in inputs.items()]
        raise BackboneError(
            f"The network has no input {name!r}, but {stated}."
            if name is not None
            else f"The network has {len(inputs)} inputs: {stated}.",
            hint="Say which one takes the images: --input NAME.",
        )
    value = inputs[name]
    sizes = _sizes(value)
    kind = value.type.tensor_type.elem_type
    if kind not in DTYPES or len(sizes) != 4:
        word = TensorProto.DataType.Name(kind).lower()
        raise BackboneError(
            f"The network's input {name!r} is {word} of the shape {sizes}, which is no batch of"
            f" images: {' or '.join(DTYPES.values())} with four axes.",
            hint="tlpipe takes image classifiers.",
        )
    layout = _layout(name, sizes)
    rows, columns = (2, 3) if layout == "NCHW" else (1, 2)
    stated_size = (sizes[rows], sizes[columns])
    height, width = size or stated_size
    if not height or not width:
        raise BackboneError(
            f"The network's input {name!r} leaves the size of the images open: {sizes} (0: open).",
            hint="Say which it was trained on: --image-size 224, for example.",
        )
    if any(
        known not in (0, mine) for known, mine in zip(stated_size, (height, width), strict=True)
    ):
        raise BackboneError(
            f"The network's input {name!r} takes {stated_size[0]} x {stated_size[1]} pixels, not"
            f" {height} x {width}.",
            hint="Leave out --image-size.",
        )
    channels = sizes[1 if layout == "NCHW" else 3]
    return ImageInput(name, layout, height, width, channels, DTYPES[kind], sizes[0])


def _layout(name: str, sizes: list[int]) -> Literal["NCHW", "NHWC"]:
    if sizes[1] in CHANNELS and sizes[3] not in CHANNELS:
        return "NCHW"
    if sizes[3] in CHANNELS and sizes[1] not in CHANNELS:
        return "NHWC"
    raise BackboneError(
        f"The network's input {name!r} has the shape {sizes} (0: open): it does not tell whether"
        " the colours stand first or last.",
        hint="Export it with the number of channels stated: (N, 3, H, W) or (N, H, W, 3).",
    )


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of an input's axes; 0 where one is open."""
    return [max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim]


def with_sizes(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    """The network with the one input `image`, its height, width and channels stated."""
    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    (value,) = [v for v in stated.graph.input if v.name == image.tensor]
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(list(dims)[1:], image.shape(1)[1:], strict=True):
        dim.dim_value = size
    return stated


def sample_images(count: int, height: int, width: int) -> Float32Array:  # (count, H, W, 3)
    """Images that differ from one another in all that a network may look at.

    Float32 from 0 to 255: a colour of its own for each, gradients, stripes of another width and
    direction, and a little noise. Plain noise would not do: a network gives nearly the same for any
    noise, which would hide it where images are mixed up.
    """
    rng = np.random.default_rng(20)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][..., None]  # (H, W, 1) each
    images = []
    for number in range(count):
        colour, slope, turn = rng.uniform(40, 215, 3), rng.uniform(-90, 90, (2, 3)), number + 1.0
        stripes = 60 * np.sin(
            2 * np.pi * (turn * 3 * x + (4 - turn) * 4 * y) + rng.uniform(0, 6, 3)
        )
        noise = rng.normal(0, 12, (height, width, 3))
        images.append(colour + slope[0] * (x - 0.5) + slope[1] * (y - 0.5) + stripes + noise)
    clipped: Float32Array = np.clip(np.stack(images), 0, 255).astype(np.float32)
    return clipped


def as_fed(images: Any, image: ImageInput, preprocess: Preprocess | None = None) -> Any:
    """Images from 0 to 255 as `image` takes them: about what the network is used to.

    Parameters
    ----------
    images : float32 array (B, H, W, 3)
    preprocess : Preprocess, optional
        Without it they are brought to -2 to 2, which suits most networks.
    """
    if image.dtype != "uint8":
        if preprocess is None:
            images = (images - 127.5) / 64
        else:
            images = (images * preprocess.scale - preprocess.mean) / preprocess.std
    if image.channels == 1:
        images = images.mean(axis=-1, keepdims=True)
    if image.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.astype(image.dtype))
