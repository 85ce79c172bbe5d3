"""How an expression of the code is shown as a text: words stand, values have names.

Owns the rules of that; used by ``error_sites.py`` for messages and hints.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import tlpipe

PACKAGE = Path(tlpipe.__file__).parent

# Methods of texts and functions that leave a value recognisable: shown as the value itself.
_TRANSPARENT = {"str", "repr", "list", "sorted", "sum", "shown", "brief", "set", "tuple", "dict"}
_TRANSPARENT |= {
    "by_count",
    "_shown",
    "type",
    "int",
    "float",
    "tolist",
    "rstrip",
    "removesuffix",
    "lower",
    "hex",
}
_CAUSES = {
    "exc",
    "strerror",
    "failure",
    "wrong",
    "why",
    "error",
    "short",
    "said",
    "_text",
    "_short",
}
_MOST_DEPTH = 6
_MOST_CHOICES = 12


def last_name(node: ast.expr) -> str:
    """``b`` of ``a.b``; empty for what is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class Texts:
    """Turns expressions into patterns."""

    def __init__(self, path: Path, function: ast.AST | None = None) -> None:
        self._path = path
        self._function = function

    def within(self, function: ast.AST | None) -> Texts:
        """The same, for expressions of one function."""
        return Texts(self._path, function)

    def pattern(self, node: ast.expr, depth: int = 0) -> str:
        """An expression as a text with placeholders."""
        match node:
            case ast.Constant(value=value):
                return str(value)
            case ast.JoinedStr(values=values):
                return "".join(self.pattern(value, depth) for value in values)
            case ast.FormattedValue():
                return self._formatted(node, depth + 1)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self.pattern(left, depth) + self.pattern(right, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return _either([self.pattern(body, depth), self.pattern(orelse, depth)])
            case ast.BoolOp(op=ast.Or(), values=values):
                return _either([self.pattern(value, depth) for value in values])
            case ast.BoolOp(op=ast.And(), values=values):
                return _either([self.pattern(values[-1], depth), ""])
            case ast.Name(id=name):
                constant = self._constant(node)
                return self._local(name, depth + 1) if constant is None else str(constant)
            case ast.Call(func=ast.Name(id="did_you_mean" | "similar_file")):
                return "[Did you mean {the nearest}?]"
            case ast.Call(func=ast.Name(id="sentences"), args=args):
                return " ".join(self.pattern(value, depth) for value in args)
            case ast.Call(func=ast.Name(id="list" | "sorted"), args=[ast.Name() as listed]):
                return self._choices(listed) or f"{{{_placeholder(node)}}}"
        return f"{{{_placeholder(node)}}}"

    def _formatted(self, node: ast.FormattedValue, depth: int) -> str:
        """What stands between the braces of an f-string."""
        constant = self._constant(node.value)
        if constant is None or (isinstance(constant, str) and node.conversion == ord("r")):
            return self.pattern(node.value, depth)
        return format(constant, self.pattern(node.format_spec) if node.format_spec else "")

    def _constant(self, node: ast.expr) -> str | int | float | None:
        """The value of a constant of the module's, or imported into it."""
        if not isinstance(node, ast.Name) or not node.id.isupper():
            return None
        value = getattr(_module(self._path), node.id, None)
        return value if isinstance(value, str | int | float) else None

    def _given_back(self, name: str, depth: int) -> str:
        """What a name stands for that is one of several texts which a function gives."""
        for statement in ast.walk(self._function or ast.Module([], [])):
            match statement:
                case ast.Assign(
                    targets=[ast.Tuple(elts=targets)],
                    value=ast.Call(func=ast.Name(id=maker)) as call,
                ):
                    names = [last_name(target) for target in targets]
                    if name in names:
                        return self._made_by(maker, call, names.index(name), depth)
        return ""

    def _made_by(self, maker: str, call: ast.Call, number: int, depth: int) -> str:
        """One of the texts that a function of the package gives, with the texts it was given."""
        made = getattr(_module(self._path), maker, None)
        if not inspect.isfunction(made):
            return ""
        path = Path(inspect.getfile(made))
        function = ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]
        within = Texts(path, function)
        found = [
            within.pattern(node.value.elts[number], depth)
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
        ]
        parameters = inspect.signature(made).parameters
        given = dict(zip(parameters, call.args, strict=False))
        given |= {word.arg: word.value for word in call.keywords if word.arg}
        left_out = {f"{{{name}}}" for name in parameters.keys() - given.keys()}
        text = _either(["" if words in left_out else words for words in found])
        for parameter, value in given.items():
            if is_text(value):
                text = text.replace(f"{{{parameter}}}", self.pattern(value, depth))
        return text

    def _choices(self, node: ast.Name) -> str:
        """The texts of a constant that lists a few; empty for anything else."""
        values = getattr(_module(self._path), node.id, None) if node.id.isupper() else None
        if not isinstance(values, tuple | dict | frozenset) or len(values) > _MOST_CHOICES:
            return ""
        return str([str(value) for value in values])

    def _local(self, name: str, depth: int) -> str:
        """What a name of the function stands for, where it is given texts alone."""
        values = [
            statement.value
            for statement in ast.walk(self._function or ast.Module([], []))
            if isinstance(statement, ast.Assign)
            and [last_name(target) for target in statement.targets] == [name]
        ]
        if depth < _MOST_DEPTH and (given := self._given_back(name, depth)):
            return given
        if depth < _MOST_DEPTH and values and all(is_text(value) for value in values):
            return _either([self.pattern(value, depth) for value in values])
        return f"{{{_placeholder(ast.Name(name))}}}"


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a text by its form."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_text(body) and is_text(orelse)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_text(left) and is_text(right)
    return False


def _either(texts: list[str]) -> str:
    """Alternatives between slashes; in brackets what may be missing."""
    told = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(told) == 1 and told[0].startswith("["):
        return told[0]
    if not told:
        return ""
    if len(told) == 1:
        return told[0] if all(text.strip() for text in texts) else f"[{told[0]}]"
    return f"({' / '.join(told)})"


def _placeholder(node: ast.expr) -> str:
    """A short name for a value."""
    match node:
        case ast.Name(id=name):
            return "reason" if name in _CAUSES else name.strip("_").lower()
        case ast.Attribute(attr="strerror"):
            return "reason"
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name.strip("_")
        case ast.Attribute(value=value, attr="name" | "value" | "message" | "url" | "path"):
            return _placeholder(value)
        case ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call():
            return _of_call(node)
    match node:
        case ast.Subscript(value=value) | ast.Starred(value=value):
            return _placeholder(value)
        case ast.GeneratorExp(elt=value) | ast.ListComp(elt=value) | ast.BinOp(left=value):
            return _placeholder(value)
        case ast.BoolOp(values=[first, *_]):
            return _placeholder(first)
        case ast.JoinedStr(values=values):
            held = [value.value for value in values if isinstance(value, ast.FormattedValue)]
            return _placeholder(held[0]) if held else "value"
    return "value"


def _of_call(call: ast.Call) -> str:
    """A short name for what a function gives: often that of what it is given."""
    name = last_name(call.func)
    match call:
        case ast.Call(func=ast.Name(id="len"), args=[value]):
            return f"number of {_placeholder(value)}"
        case ast.Call(func=ast.Name(id="type")):
            return "type"
        case ast.Call(func=ast.Attribute(attr="join" | "repr"), args=[value]):
            return _placeholder(value)
        case ast.Call(func=ast.Attribute(value=value)) if name in _TRANSPARENT:
            return _placeholder(value)
        case ast.Call(args=[*_, value]) if name == "map":
            return _placeholder(value)
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=value), *_]):
            return str(value)
        case ast.Call(func=ast.Attribute(value=value, attr="get")):
            return _placeholder(value)
        case ast.Call(args=[value, *_]) if name in _TRANSPARENT:
            return _placeholder(value)
    return name.strip("_") or "value"


def _module(path: Path) -> ModuleType:
    """The module itself, for the values of its constants."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return sys.modules.get(name) or importlib.import_module(name)
