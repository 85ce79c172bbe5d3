"""Training in PyTorch from images, each epoch anew: the last layer alone, or all of the network.

Call: ``torch_train.py PLAN.json head|everything [--rate R] [--head-rate R] [--epochs N]
[--budget-s S] [--batch N] [--seed N]``. PLAN.json holds ``{"classes": K, "train": [[path, label],
...], "judge": [[path, label], ...]}``. EfficientNet-Lite0 starts from its published weights, under
a last layer that starts at random; Adam, no weight decay, one rate for all steps.

* ``head``: the backbone is frozen and in evaluation mode (its batch norms keep their statistics),
  without gradients; the same pixels in every epoch.
* ``everything``: all weights are trained, in training mode (batch norms, dropout and drop-connect
  as published), each photo mirrored in every second epoch on average.

One worker process per core decodes; channels last. After each epoch the held-out images are judged.
Prints one line of JSON::

    {"curve": [{"epoch": 1, "seconds": ..., "accuracy": ..., "log_loss": ..., "kept": ...}, ...],
     "parameters": n, "peak_bytes": ...}

`seconds` counts from the start of the process; the clock stands still while images are judged.
`kept` is the part of the held-out images that the original network, its own last layer on the
backbone as it is by now, still gives the ImageNet class that it gave before: what is left of what
the backbone knew. The first epoch at whose end `--budget-s` is over is the last.
Needs what ``torch_loader.py`` needs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import START, cores, peak_bytes
from PIL import Image, ImageOps
from torch.nn import functional
from torch_loader import network, preparation
from torchvision import transforms

Batches = "torch.utils.data.DataLoader[tuple[torch.Tensor, int]]"
Embed = Callable[[torch.Tensor], torch.Tensor]


class Photos(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Photos with labels, turned as their EXIF says."""

    def __init__(self, pairs: list[tuple[str, int]], prepare: Any) -> None:
        self._pairs, self._prepare = pairs, prepare

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self._pairs[index]
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        return self._prepare(image), label


@dataclass
class Clock:
    """Seconds since the process was started, but for those spent in pauses."""

    paused: float = 0.0

    def now(self) -> float:
        return time.monotonic() - START - self.paused

    def pause(self, work: Callable[[], Any]) -> Any:
        """Do something that does not count."""
        start = time.monotonic()
        done = work()
        self.paused += time.monotonic() - start
        return done


class Judge:
    """Judges on the held-out images."""

    def __init__(self, batches: Batches, backbone: torch.nn.Module, embed: Embed) -> None:
        self._batches, self._backbone, self._embed = batches, backbone, embed
        self._before: torch.Tensor | None = None

    def __call__(self, head: torch.nn.Module) -> dict[str, float]:
        """Accuracy and log loss of a head, and what is kept of what the backbone knew."""
        self._backbone.eval()
        right = loss = 0.0
        classes, count = [], 0
        with torch.inference_mode():
            for images, labels in self._batches:
                vectors = self._embed(images)
                logits = head(vectors)
                loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
                right += float((logits.argmax(1) == labels).sum())
                classes.append(self._backbone._fc(vectors).argmax(1))
                count += len(labels)
        now = torch.cat(classes)
        if self._before is None:
            self._before = now
        kept = float((now == self._before).float().mean())
        return {"accuracy": right / count, "log_loss": loss / count, "kept": kept}


def loader(pairs: list[tuple[str, int]], prepare: Any, batch: int, shuffle: bool) -> Batches:
    """A process per core, kept from epoch to epoch."""
    return torch.utils.data.DataLoader(
        Photos(pairs, prepare),
        batch_size=batch,
        shuffle=shuffle,
        num_workers=cores(),
        persistent_workers=True,
    )


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """Train until the epochs or the seconds are over."""
    clock = Clock()
    plan = json.loads(chosen.plan.read_text())
    torch.manual_seed(chosen.seed)
    everything = chosen.method == "everything"
    backbone = network().to(memory_format=torch.channels_last)
    head = torch.nn.Linear(backbone._fc.in_features, plan["classes"])

    def embed(images: torch.Tensor) -> torch.Tensor:
        maps = backbone.extract_features(images.to(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3))

    prepare = preparation()
    mirrored = transforms.Compose([transforms.RandomHorizontalFlip(), prepare])
    batches = loader(plan["train"], mirrored if everything else prepare, chosen.batch, True)
    judge = Judge(loader(plan["judge"], prepare, chosen.batch, False), backbone, embed)
    groups = [{"params": list(head.parameters()), "lr": chosen.head_rate or chosen.rate}]
    if everything:
        inside = [p for name, p in backbone.named_parameters() if not name.startswith("_fc.")]
        groups.append({"params": inside, "lr": chosen.rate})
    optimiser = torch.optim.Adam(groups)
    trained = sum(p.numel() for group in groups for p in group["params"])
    start = clock.pause(lambda: judge(head))
    curve = [{"epoch": 0, "seconds": clock.now(), **start}]
    for epoch in range(1, chosen.epochs + 1):
        backbone.train(everything)
        for images, labels in batches:
            with torch.set_grad_enabled(everything):
                vectors = embed(images)
            if everything:
                vectors = backbone._dropout(vectors)
            loss = functional.cross_entropy(head(vectors), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seconds = clock.now()
        judged = clock.pause(lambda: judge(head))
        curve.append({"epoch": epoch, "seconds": seconds, **judged})
        if seconds >= chosen.budget_s:
            break
    return {"curve": curve, "parameters": trained}


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("method", choices=("head", "everything"))
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam")
    parser.add_argument("--head-rate", type=float, help="the last layer's own, if another")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--budget-s", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train and print."""
    figures = train(parsed())
    print(json.dumps({**figures, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
