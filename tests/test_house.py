"""The architecture: one door between the two rooms, and light modules stay light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import maskcls

PACKAGE = Path(maskcls.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
LIGHT = [
    "labels", "folds", "manifest", "images", "transforms", "metrics", "config", "appearance",
    "check_data",
]  # fmt: skip


def imported_names(source):
    """Top-level names of every import in the source, also inside functions and by string."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module.partition(".")[0]


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import ray.data as rd",
        "from ray.train import report",
        "def f():\n    import ray",
        "if TYPE_CHECKING:\n    from ray import data",
        "importlib.import_module('ray.data')",
        "__import__('ray')",
    ],
)
def test_the_check_sees_every_way_to_import(source):
    assert "ray" in set(imported_names(source))


@pytest.mark.parametrize("name", ["__init__", *MODULES])
def test_maskcls_never_imports_ray(name):
    source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    assert not {"ray", "ray_jobs"} & set(imported_names(source))


def run_fresh(code, *arguments):
    """Run code in a new interpreter and return what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("verb", ["sweep", "tune", "predict", "compare", "report", "status"])
def test_drivers_leave_pytorch_to_their_lanes(verb):
    """Seconds of their start, and 150 MB."""
    code = "import importlib, json, sys; importlib.import_module(sys.argv[1])"
    code += "; print(json.dumps('torch' in sys.modules))"
    assert not run_fresh(code, f"ray_jobs.{verb}")


def test_maskcls_works_where_ray_is_not_installed():
    # None in sys.modules makes every import of that name fail, by us or by a library we use.
    code = """
import importlib, json, sys
sys.modules["ray"] = sys.modules["ray_jobs"] = None
for name in sys.argv[1:]:
    importlib.import_module(f"maskcls.{name}")
print(json.dumps(sys.argv[1:]))
"""
    assert run_fresh(code, *MODULES) == MODULES


def test_light_modules_import_neither_torch_nor_ray():
    code = """
import importlib, json, sys
heavy = {}
for name in sys.argv[1:]:
    importlib.import_module(f"maskcls.{name}")
    heavy[name] = sorted({"torch", "ray"} & set(sys.modules))
print(json.dumps(heavy))
"""
    assert run_fresh(code, *LIGHT) == {name: [] for name in LIGHT}


def test_the_package_is_flat_and_every_file_has_a_subject():
    python_files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    assert all(len(path.parts) == 1 for path in python_files)
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
    assert not vague & set(MODULES)
    assert not [name for name in MODULES if name.startswith("base_")]
