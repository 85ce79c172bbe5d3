from __future__ import annotations

import inspect
import re

import pytest

from tlpipe import errors
from tlpipe.errors import OutputError, TlpipeError, UnknownBackboneError

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, TlpipeError) and value is not TlpipeError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_error_has_a_standard_base_and_stands_in_the_tree(kind: type[TlpipeError]) -> None:
    standard = [base for base in kind.__bases__ if not issubclass(base, TlpipeError)]
    assert len(standard) == 1
    line = rf"── {kind.__name__} +\({standard[0].__name__}\) +\w"
    assert re.search(line, str(errors.__doc__))


def test_message_and_hint() -> None:
    error = UnknownBackboneError("No such backbone.", hint="List them.")
    assert str(error) == "No such backbone. List them."
    assert error.message == "No such backbone."
    assert error.exit_code == 1
    assert str(OutputError("Disk full.")) == "Disk full."
