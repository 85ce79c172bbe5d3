"""The loop one would write by hand: Pillow, NumPy, and ONNX Runtime with its default settings.

Call: ``naive_loop.py FOLDER OUTPUT.npy NETWORK_FOLDER [--batches]``; one image at a time, or in
batches of 32. Needs pillow, numpy and onnxruntime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from measure import Marks, arguments, batch_size, finish, images
from PIL import Image


def pixels(path: Path) -> np.ndarray:
    """(3, 224, 224): short side to 256, bicubic, the centred 224, (x - 127) / 128."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    scale = 256 / min(width, height)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    image = image.crop((left, top, left + 224, top + 224))
    return ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1)


def main() -> None:
    """Embed the folder."""
    folder, output, (network, *options) = arguments()
    paths = images(folder)
    session = onnxruntime.InferenceSession(
        Path(network, "model.onnx"), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    size = batch_size(len(paths), 32) if "--batches" in options else 1
    marks, features, done = Marks(), [], 0
    for start in range(0, len(paths), size):
        batch = np.stack([pixels(path) for path in paths[start : start + size]])
        features.append(session.run(None, {name: batch})[0])
        done += len(batch)
        marks.mark(done)
    finish(marks, features, output)


if __name__ == "__main__":
    main()
