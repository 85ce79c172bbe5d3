"""What every network says of itself, and how it fails."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from tlpipe.errors import BackboneError
from tlpipe.stages.session.opening import placement


class Outputs:
    """The choice of a network's outputs.

    Parameters
    ----------
    names : list of str
        Of all that it has.
    """

    def __init__(self, names: list[str]) -> None:
        self._outputs = names

    def only(self, outputs: list[str]) -> Self:
        """Give the same network, computing these outputs alone.

        Raises
        ------
        BackboneError
            The network has no such output.
        """
        missing = [name for name in outputs if name not in self._outputs]
        if missing:
            raise BackboneError(
                f"The network has no outputs {missing}, but {self._outputs}.",
                hint="Correct the names under [output] in the backbone's card.",
            )
        chosen = copy.copy(self)
        chosen._outputs = outputs
        return chosen


class Opened(Outputs):
    """Facts of an ONNX Runtime session, and the choice of its outputs.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self._input: str = session.get_inputs()[0].name
        super().__init__([output.name for output in session.get_outputs()])

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata properties."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def placement(self) -> Mapping[str, int]:
        """How many of its operators each provider runs; empty where that is not known."""
        return placement(self._session)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its input and of the outputs it computes, without their batch axes."""
        outputs = [o for o in self._session.get_outputs() if o.name in self._outputs]
        return tuple(tuple(value.shape[1:]) for value in (*self._session.get_inputs(), *outputs))


def failure(exc: Exception | str, shape: tuple[int, ...]) -> BackboneError:
    """What is raised where a network cannot be run on a batch of images of some shape."""
    return BackboneError(
        f"The network failed on a batch of shape {shape}: {exc}",
        hint="Where memory ran out, a smaller --batch-size helps; else its card may be wrong.",
    )
