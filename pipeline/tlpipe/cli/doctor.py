"""``tlpipe doctor``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.kinds import SOURCE
from tlpipe.cli.network_options import backbone_option
from tlpipe.cli.show import shown
from tlpipe.cli.usage import Choice
from tlpipe.execution import DEVICES
from tlpipe.quantities import counted

if TYPE_CHECKING:
    from tlpipe.workflows.doctor import Diagnosis, Speed

UNUSABLE = 1
"""Exit code where the device cannot be used."""


@click.command("doctor")
@click.argument("source", type=SOURCE, required=False)
@backbone_option
@click.option(
    "--device",
    type=Choice(DEVICES),
    default="auto",
    show_default=True,
    help="What is tried out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(source: str | None, backbone: str, device: Any, as_json: bool) -> None:
    """Say what this machine has, what is wrong with it, and how fast it can embed.

    Decoding and inference are timed for a few seconds, each alone: with the images of SOURCE, or
    with one made up. Exit code 1 where the device cannot be used.

    \b
    Example:
      tlpipe doctor
      tlpipe doctor photos/ --device cuda
    """
    from tlpipe import doctor

    found = doctor(source, backbone=backbone, device=device)
    if as_json:
        from dataclasses import asdict

        flat = asdict(found)
        click.echo(json.dumps(flat | flat.pop("facts"), ensure_ascii=False, indent=2))
    else:
        for name, value in _rows(found, device):
            click.echo(shown(f"{name:<14} {value}"))
        for finding in found.findings:
            click.echo()
            click.echo(shown(f"wrong: {finding.what}"))
            click.echo(shown(f"cure:  {finding.cure}"))
    if not found.usable:
        click.get_current_context().exit(UNUSABLE)


def _rows(found: Diagnosis, asked: str) -> list[tuple[str, str]]:
    facts = found.facts
    memory, decoder, cache = facts["memory_bytes"], facts["decoder"], facts["cache"]
    state = f"used by {found.provider}" if found.usable else "cannot be used"
    rows = [
        ("cores", f"{facts['cores']['usable']} usable of {facts['cores']['all']}"),
        ("processor", _listed(facts["processor"]["name"], facts["processor"]["extensions"])),
        ("memory", f"{memory / 1e9:.1f} GB" if memory else "not known"),
        *_gpu_rows(facts),
        ("ONNX Runtime", _onnxruntime(facts["onnxruntime"])),
        ("OpenVINO", _openvino(facts["openvino"])),
        ("Pillow", f"{decoder['pillow']} with {decoder['jpeg']}; decodes as {decoder['mode']}"),
        ("cache", f"{cache['folder']} ({cache['free_bytes'] / 1e9:.1f} GB free)"),
        ("device", f"{found.device}{' (auto)' if asked == 'auto' else ''}, {state}"),
    ]
    if len(found.placement) > 1:
        counts = [f"{n} by {name}" for name, n in found.placement.items()]
        rows.append(("operators", f"run {', '.join(counts)}"))
    return rows + _speed_rows(found, found.speed) if found.speed else rows


def _gpu_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    if not facts["gpus"]:
        return [("GPUs", f"none: {facts['driver']['problem']}")]
    cuda = facts["driver"]["cuda"]
    return [(f"GPU {gpu['index']}", _gpu(gpu, cuda)) for gpu in facts["gpus"]]


def _gpu(gpu: dict[str, Any], cuda: str) -> str:
    capability = ".".join(map(str, gpu["capability"]))
    memory = f"{gpu['memory_bytes'] / 1e9:.1f} GB"
    return f"{gpu['name']}, {memory}, compute capability {capability}, driver for CUDA {cuda}"


def _onnxruntime(facts: dict[str, Any]) -> str:
    wheels = [f"{name} {version}" for name, version in facts["wheels"].items()]
    providers = [name.removesuffix("ExecutionProvider") for name in facts["providers"]]
    return _listed(" and ".join(wheels) or facts["version"], providers)


def _openvino(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "not installed"
    if problem := facts.get("problem"):
        return f"{facts['version']}, which fails: {problem}"
    return _listed(facts["version"], facts["precisions"])


def _speed_rows(found: Diagnosis, speed: Speed) -> list[tuple[str, str]]:
    cores = counted(found.facts["cores"]["usable"], "core")
    where = "of one core" if found.device == "cpu" else "of all GPUs"
    network = f"{found.backbone}, batches of {speed.batch_size}"
    return [
        ("decoding", f"{speed.decode_s * 1e3:.2f} ms of one core per image ({speed.images})"),
        ("inference", f"{speed.inference_s * 1e3:.2f} ms {where} per image ({network})"),
        ("limit", f"{speed.limit:.0f} images/s with {cores}; most time goes to {speed.limited_by}"),
    ]


def _listed(name: str, parts: list[str]) -> str:
    return f"{name} ({', '.join(parts)})" if parts else name
