"""The input through which a network takes images: its name, layout, size and type.

Takes an ``onnx.ModelProto``, gives an ``ImageInput``; what the file leaves open is asked for, not
guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from tlpipe.errors import BackboneError
from tlpipe.graph.index import Index

if TYPE_CHECKING:
    from tlpipe.types import Float32Array, Layout, PixelType, Preprocess

DTYPES: dict[int, PixelType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}
"""Types of an image input that are understood."""

CHANNELS = (3, 1)
_AXES = 4
_MOST_PIXELS = 2**26  # of all images that are run at once; some 6 GB while they are made
_SAMPLES = 4  # that are made at least
_LAYOUTS: dict[Layout, int] = {"NCHW": 1, "NHWC": 3}  # where the colours stand


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
    layout: Layout
    height: int
    width: int
    channels: int
    dtype: PixelType
    batch: int

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """Shape of a batch of `count` images."""
        if self.layout == "NCHW":
            return count, self.channels, self.height, self.width
        return count, self.height, self.width, self.channels

    def samples(self, count: int, preprocess: Preprocess | None = None) -> Any:
        """Different images as it takes them: see ``sample_images`` and ``as_fed``."""
        return as_fed(sample_images(count, self.height, self.width), self, preprocess)


def possible_inputs(
    model: onnx.ModelProto, name: str | None = None, size: tuple[int, int] | None = None
) -> list[ImageInput]:
    """What the input that takes images may be, as far as the file tells: usually one thing.

    Parameters
    ----------
    model : onnx.ModelProto
        Tidied; its other inputs are none of this function's business.
    name : str, optional
        Which input; needed where there are several.
    size : tuple of int, optional
        Height and width in pixels; needed where the file leaves them open, and it must agree where
        it does not.

    Returns
    -------
    list of ImageInput
        Several where the file leaves open whether the colours stand first or last, or how many
        there are.

    Raises
    ------
    BackboneError
        There is no such input, there are several, or its shape is not that of images.
    """
    value = _named(model, name)
    sizes = _sizes(value)
    kind = value.type.tensor_type.elem_type
    if kind not in DTYPES or len(sizes) != _AXES:
        word = TensorProto.DataType.Name(kind).lower()
        raise BackboneError(
            f"The network's input {value.name!r} is {word} of the shape {sizes}, which is no batch"
            f" of images: {' or '.join(DTYPES.values())} with four axes.",
            hint="tlpipe takes image classifiers.",
        )
    found = []
    for channels in CHANNELS:
        for layout, at in _LAYOUTS.items():
            rows, columns = (2, 3) if layout == "NCHW" else (1, 2)
            height, width = size or (sizes[rows], sizes[columns])
            whole = [sizes[0], height, width]
            whole.insert(at, channels)
            if {height, width} & set(CHANNELS):  # no size of images, but colours in another place
                continue
            if all(known in (0, mine) for known, mine in zip(sizes, whole, strict=True)):
                image = ImageInput(
                    value.name, layout, height, width, channels, DTYPES[kind], sizes[0]
                )
                found.append(image)
    if not found:
        raise _misfit(value.name, sizes, size)
    if any(not image.height or not image.width for image in found):
        raise BackboneError(
            f"The network's input {value.name!r} leaves the size of the images open: {sizes}"
            " (0: open).",
            hint="Say which it was trained on: --image-size 224, for example.",
        )
    image = found[0]
    if max(image.batch, _SAMPLES) * image.height * image.width > _MOST_PIXELS:
        count = f"{image.batch:,} images at once of" if image.batch else "images of"
        raise BackboneError(
            f"The network's input {value.name!r} takes {count} {image.height:,} x"
            f" {image.width:,} pixels: more than fits in memory.",
            hint="Use another --image-size, where the network leaves it open; or export it for"
            " fewer images at once.",
        )
    return found


def _named(model: onnx.ModelProto, name: str | None) -> onnx.ValueInfoProto:
    inputs: dict[str, onnx.ValueInfoProto] = {v.name: v for v in Index(model.graph).inputs}
    if name is None and len(inputs) == 1:
        name = next(iter(inputs))
    if name is not None and name in inputs:
        return inputs[name]
    stated = [f"{key} {_sizes(value)}" for key, value in inputs.items()]
    raise BackboneError(
        f"The network has no input {name!r}, but {stated}."
        if name is not None
        else f"The network has {len(inputs)} inputs: {stated}.",
        hint="Say which one takes the images: --input NAME.",
    )


def _misfit(name: str, sizes: list[int], size: tuple[int, int] | None) -> BackboneError:
    first, last = sizes[1] in (0, *CHANNELS), sizes[3] in (0, *CHANNELS)
    if size is not None and set(size) & set(CHANNELS):
        return BackboneError(
            f"Images of {size[0]} x {size[1]} pixels are too small to be told from their colours.",
            hint="Say which size the network was trained on: --image-size 224, for example.",
        )
    if size is not None and (first or last):
        stated = sizes[2:] if first else sizes[1:3]
        return BackboneError(
            f"The network's input {name!r} takes {stated[0]} x {stated[1]} pixels, not"
            f" {size[0]} x {size[1]}.",
            hint="Leave out --image-size.",
        )
    return BackboneError(
        f"The network's input {name!r} has the shape {sizes} (0: open), which is no batch of images"
        " with three colours or one: (N, 3, H, W) or (N, H, W, 3).",
        hint="tlpipe takes networks for colour or grey images.",
    )


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of an input's axes; 0 where one is open, as all are where no shape is stated."""
    if not value.type.tensor_type.HasField("shape"):
        return [0] * _AXES
    return [max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim]


def with_sizes(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    """The network with the one input `image`, its height, width and channels stated."""
    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    (value,) = [v for v in stated.graph.input if v.name == image.tensor]
    dims = value.type.tensor_type.shape.dim
    if not dims:
        dims.add(dim_param="N")
        for _ in range(_AXES - 1):
            dims.add()
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
