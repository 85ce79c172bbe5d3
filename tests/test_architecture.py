"""The import directions of the design, held against the code; what importing may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tlpipe

ROOT = Path(tlpipe.__file__).parent

# A layer imports itself (but for stages and workflows, see below) and those before it.
LAYERS = [
    {
        "addresses",
        "errors",
        "execution",
        "files",
        "label_cells",
        "last_layer",
        "lock",
        "machine",
        "near",
        "parquet_guard",
        "parquet_pages",
        "parts_folder",
        "picture",
        "precision",
        "quantities",
        "records",
        "seams",
        "types",
        "version",
        "web",
        "web_opening",
    },
    {
        "card",
        "card_rules",
        "card_text",
        "catalogue",
        "class_names",
        "foreign_preprocess",
        "graph",
        "presets",
    },
    {"stages"},
    {"workflows"},
    {"sklearn"},
    {"cli"},
]

# Heavy libraries, and the only modules that may import them.
OWNERS = {
    "onnxruntime": {"stages/session/"},
    "openvino": {"stages/session/openvino.py"},
    "h5py": {"stages/store/"},
    "sklearn": {"stages/digits.py", "sklearn/"},
    "threadpoolctl": {"stages/head/pool.py", "stages/novelty.py"},
    "onnx": {"graph/"},
    "google": {"graph/"},
    "PIL": {
        "stages/decode.py",
        "stages/preprocess.py",
        "stages/digits.py",
        "stages/sample.py",
        "stages/source/pictures.py",
        "stages/thumbnails.py",
    },
    "cykooz_resizer": {"stages/preprocess.py"},
    "rich": {"cli/show.py", "cli/progress.py"},
    "click": {"cli/"},
    "filelock": {"stages/download/", "lock.py"},
    "fsspec": {"stages/source/stores.py"},
    "pyarrow": {
        "parquet_guard.py",
        "stages/predictions/parquet.py",
        "stages/source/parquet/",
        "stages/tables/parquet.py",
    },
    "jinja2": {"stages/page/"},
    "ray": {"workflows/ray_crew.py"},
    "sqlite3": {"stages/store/index.py"},
    "umap": {"stages/projection.py"},
}

HEAVY = set(
    "numpy onnx onnxruntime openvino h5py sklearn scipy PIL pyarrow rich fsspec ray jinja2"
    " umap".split()
)


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> list[str]:
    """Full names of the modules a file imports, typing-only imports left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_to_earlier_layers(path: Path) -> None:
    own = name_of(path).removesuffix(".py").split("/")
    if own[0] in ("__init__", "__main__"):
        return  # the public names, and the command: above all layers
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tlpipe" or len(parts) < 2:
            continue
        known = [layer for layer in LAYERS if parts[1] in layer]
        if not known:  # a public name of the package: for the command line alone
            assert own[0] == "cli", f"{name_of(path)} imports {name}"
            continue
        assert layer_of(parts[1]) <= layer_of(own[0]), f"{name_of(path)} imports {name}"
        if own[0] == parts[1] == "stages" and len(parts) > 2 and parts[2] != own[1]:
            raise AssertionError(f"the stage {name_of(path)} imports the stage {name}")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_heavy_library_has_one_owner(path: Path) -> None:
    own = name_of(path)
    for name in imports(path):
        library = name.split(".")[0]
        owners = OWNERS.get(library)
        if owners is not None:
            assert any(own == o or (o.endswith("/") and own.startswith(o)) for o in owners), (
                f"{own} imports {name}"
            )


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_tlpipe_loads_no_heavy_library() -> None:
    assert not loaded_by("import tlpipe") & HEAVY


def test_help_loads_no_heavy_library() -> None:
    code = (
        "from tlpipe.cli.main import cli\n"
        "for line in ([], ['embed'], ['train-head'], ['models', 'export'], ['export'],\n"
        "             ['import'], ['merge'], ['split'], ['audit'], ['compare'], ['doctor'],\n"
        "             ['run'], ['completion'], ['report']):\n"
        "    try: cli([*line, '--help'])\n"
        "    except SystemExit as exit: assert exit.code == 0"
    )
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize(
    "words",
    [["em"], ["embed", "--"], ["embed", "photos", "--backbone", ""], ["train-head", ""]],
    ids=" ".join,
)
def test_completing_loads_no_heavy_library(words: list[str]) -> None:
    asked = {
        "COMP_WORDS": "\n".join(["tlpipe", *words]),
        "COMP_CWORD": str(len(words)),
        "_TLPIPE_COMPLETE": "bash_complete",
    }
    code = (
        f"import os\nos.environ |= {asked!r}\n"
        "from tlpipe.cli.main import cli\n"
        "try: cli(prog_name='tlpipe')\n"
        "except SystemExit as exit: assert exit.code == 0"
    )
    assert not loaded_by(code) & HEAVY


def test_classify_needs_neither_scikit_learn_nor_onnx_nor_h5py() -> None:
    code = "import tlpipe\ntlpipe.classify\nimport tlpipe.cli.classify"
    assert not loaded_by(code) & {"sklearn", "scipy", "onnx", "h5py"}


def test_neither_does_a_job_that_classifies() -> None:
    code = (
        "import tlpipe, tlpipe.cli.run\nfrom tlpipe.workflows.jobs.schema import shape_of\n"
        "tlpipe.run, tlpipe.read_job, tlpipe.dry_run, shape_of('classify'), shape_of('evaluate')"
    )
    assert not loaded_by(code) & {"sklearn", "scipy", "onnx", "h5py"}


def test_public_names_are_those_the_type_checker_sees() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == tlpipe.__all__
    for name, (module, original) in seen.items():
        value = getattr(tlpipe, name)
        assert value is getattr(sys.modules[str(module)], original)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tlpipe.nothing  # noqa: B018
