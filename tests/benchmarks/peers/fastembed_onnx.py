"""fastembed's ImageEmbedding running the same network from a local ONNX file.

Call: ``fastembed_onnx.py FOLDER OUTPUT.npy NETWORK_FOLDER [--parallel]``, the last being one
process per core. There is no ``add_custom_model`` for images (fastembed 0.9), but a folder of one's
own may stand for that of a known model (``specific_model_path``): nothing is downloaded, and of the
known model only the file's name, ``model.onnx``, is used. fastembed scales each vector to length 1.
Its default batch is 16. Needs fastembed.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from fastembed import ImageEmbedding
from measure import Marks, arguments, batch_size, cores, finish, images

STANDS_FOR = "Qdrant/resnet50-onnx"


def main() -> None:
    """Embed the folder."""
    folder, output, (network, *options) = arguments()
    paths = images(folder)
    model = ImageEmbedding(
        STANDS_FOR, specific_model_path=network, providers=["CPUExecutionProvider"]
    )
    size = batch_size(len(paths), 16)
    parallel = cores() if "--parallel" in options else None
    marks, features = Marks(), []
    for vector in model.embed([str(path) for path in paths], size, parallel):
        features.append(np.asarray(vector)[np.newaxis])
        if len(features) % size == 0:  # vectors come a batch at a time
            marks.mark(len(features))
    if len(features) % size:
        marks.mark(len(features))
    finish(marks, features, output)


if __name__ == "__main__":
    main()
