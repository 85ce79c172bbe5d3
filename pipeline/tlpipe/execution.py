"""How a network is run: on what device, in what arithmetic, by what library.

Part of the vocabulary: imports ``errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tlpipe.errors import OptionError

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda", "tensorrt")

Precision = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")
"""Of the arithmetic inside a network; embeddings come out as float32 whatever it is."""

Runtime = Literal["auto", "onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("auto", "onnxruntime", "openvino")
"""The library that runs networks."""

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
"""Where the work is done: in this process, or on the nodes of a Ray cluster."""


@dataclass(frozen=True)
class Execution:
    """How a network is run.

    Attributes
    ----------
    device : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" is CUDA where the machine has an NVIDIA GPU and the precision is offered on it, else
        the CPU.
    precision : {"fp32", "bf16", "fp16", "int8"}
    runtime : {"auto", "onnxruntime", "openvino"}
        "auto" is OpenVINO for bf16, else ONNX Runtime.
    batch_size : int or None
        B, images per call; None for what suits the network and the device.
    threads : int or None
        Most calls that are made at the same time; None for one per usable core.
    """

    device: Device = "auto"
    precision: Precision = "fp32"
    runtime: Runtime = "auto"
    batch_size: int | None = None
    threads: int | None = None

    @property
    def library(self) -> Literal["onnxruntime", "openvino"]:
        """The library that runs the network."""
        if self.runtime != "auto":
            return self.runtime
        return "openvino" if self.precision == "bf16" else "onnxruntime"

    @property
    def arithmetic(self) -> str:
        """What determines its numbers, as files note it: "fp32", else "int8/onnxruntime".

        Libraries round FP32 alike, up to the last bits; but each has its own int8 and bf16.
        """
        return "fp32" if self.precision == "fp32" else f"{self.precision}/{self.library}"

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
            ("runtime", self.runtime, RUNTIMES),
        ):
            if value not in choices:
                raise OptionError(
                    f"The {what} {value!r} is unknown.", hint=f"Use one of {list(choices)}."
                )
        for what, number in (("batch size", self.batch_size), ("number of threads", self.threads)):
            if number is not None and (type(number) is not int or number < 1):
                raise OptionError(f"The {what} is {number!r}; it must be an int of at least 1.")


def parsed_arithmetic(text: str) -> tuple[Precision, Runtime] | None:
    """Precision and library of what ``Execution.arithmetic`` gave; None of any other text."""
    for precision in PRECISIONS:
        for runtime in RUNTIMES[1:]:
            if Execution(precision=precision, runtime=runtime).arithmetic == text:
                return precision, "auto" if precision == "fp32" else runtime
    return None


ON_CPU = Execution(device="cpu")
