"""Every place in the code that makes an error, with its message and hint as patterns.

Read from the source by its syntax tree; ``error_texts.py`` says how a message is shown. Used by
``error_messages.py``, for the page, and by the tests, which look that each place was reached.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from error_texts import PACKAGE, Texts, is_text, last_name

ROOT_CLASS = "TlpipeError"


@dataclass(frozen=True)
class Site:
    """One call that makes an error.

    Attributes
    ----------
    file : str
        Below the package, with "/".
    function : str
        The function or method it stands in.
    line, column : int
        Where the call starts, as Python's frames give it: from 1, from 0.
    kind : str
        The error's class.
    message, hint : str
        Patterns; the hint is empty where there is none.
    """

    file: str
    function: str
    line: int
    column: int
    kind: str
    message: str
    hint: str

    @property
    def name(self) -> str:
        """What identifies it as long as its function and its message stay."""
        return f"{self.file} {self.function}: {self.kind}: {self.message}"


@cache
def sites() -> tuple[Site, ...]:
    """All places that make an error of tlpipe's, in the order of files and lines."""
    trees = _trees()
    kinds = _kinds(trees)
    found = [
        site
        for path, tree in trees.items()
        for site in _Module(path, tree).calls(kinds, always=kinds)
    ]
    return tuple(sorted(found, key=lambda site: (site.file, site.line, site.column)))


def inner_reasons() -> list[Site]:
    """All places that raise another exception with words of its own, or made of words given.

    Their words stand inside the messages of tlpipe's errors, or in the detail of a reject.
    """
    trees = _trees()
    ours = {
        node.name for tree in trees.values() for node in ast.walk(tree) if _is_exception(node)
    } - _kinds(trees)
    ours |= {"Reject", "UsageError", "BadParameter"}
    wanted = ours | {"ValueError", "OSError", "EOFError", "UnpicklingError"}
    return [
        site
        for path, tree in trees.items()
        for site in _Module(path, tree).calls(wanted, always=ours)
        if site.message
    ]


@cache
def _trees() -> dict[Path, ast.Module]:
    return {
        path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
    }


def _is_exception(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        last_name(base).endswith(("Error", "Exception")) for base in node.bases
    )


def _kinds(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of tlpipe's class of errors and all that derive from it."""
    classes = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    kinds = {ROOT_CLASS}
    while (
        more := {node.name for node in classes if {last_name(base) for base in node.bases} & kinds}
        - kinds
    ):
        kinds |= more
    return kinds


class _Module:
    """One module's syntax tree, and the module itself for its constants."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._file = path.relative_to(PACKAGE).as_posix()
        self._tree = tree
        self._texts = Texts(path)

    def calls(self, kinds: set[str], always: set[str]) -> Iterator[Site]:
        """Calls of these classes: `always`, or where they are raised, as are a function's errors.

        The message is the last text that a call is given.
        """
        raised = {
            id(node.exc)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Raise) and node.exc is not None
        }
        for call, function, name in _calls(self._tree, None, "module"):
            kind = last_name(call.func)
            made_by_function = kinds != always and kind.strip("_")[:1].islower()
            if kind not in always and (
                id(call) not in raised or not (kind in kinds or made_by_function)
            ):
                continue
            hints = [word.value for word in call.keywords if word.arg == "hint"]
            texts = self._texts.within(function)
            exact = kinds == always
            words = call.args if exact else [value for value in call.args if is_text(value)]
            parts = [texts.pattern(value) for value in words[-1:]]
            if kind == "JobError":
                parts = ["The job {job} has {count} mistakes; nothing was done. {mistakes}"]
            yield Site(
                self._file,
                name,
                call.lineno,
                call.col_offset,
                kind,
                _tidied("".join(parts)),
                _tidied("".join(texts.pattern(hint) for hint in hints)),
            )


def _calls(
    node: ast.AST, function: ast.AST | None, name: str
) -> Iterator[tuple[ast.Call, ast.AST | None, str]]:
    """All calls, each with the function it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = child.name if name == "module" else f"{name}.{child.name}"
            yield from _calls(child, child, inner)
            continue
        if isinstance(child, ast.Call):
            yield child, function, name
        yield from _calls(child, function, name)


def _tidied(text: str) -> str:
    return " ".join(text.split())
