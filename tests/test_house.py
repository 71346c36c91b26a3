"""The architecture: rooms only look down, one door to Ray, and files that do one thing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "maskcls": [
        "progress", "labels", "storage", "config", "scoring", "data", "augment", "learning",
        "inference", "quality", "reports", "export", "commands", "__main__",
    ],
    "ray_jobs": [
        "cluster", "data", "training", "lanes", "run", "batch", "serving", "search", "forecast",
        "health", "__main__",
    ],
}  # fmt: skip
"""The rooms of each package from the ground up; a room imports only from those below it."""

VERBS = sorted(path.stem for path in (ROOT / "ray_jobs").glob("[!_]*.py"))
FILES = sorted(path for package in ROOMS for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
LIGHT = [
    "labels", "data.folds", "data.manifest", "data.prepared", "augment.augmentations",
    "scoring.metrics", "config.load", "quality.appearance", "commands.check",
]  # fmt: skip


def imported_names(source):
    """Dotted names of every import in the source, also inside functions and by string."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def imports_of(path):
    """Our own modules that a file imports."""
    for name in imported_names(path.read_text(encoding="utf-8")):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            yield module


def height(module):
    """The floor of a module within its package; the verbs of Ray are on top."""
    package, _, rest = module.partition(".")
    rooms, room = ROOMS[package], rest.partition(".")[0]
    return len(rooms) if package == "ray_jobs" and room in VERBS else rooms.index(room)


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
    assert "ray" in {name.partition(".")[0] for name in imported_names(source)}


def test_maskcls_never_imports_ray():
    for name, path in MODULES.items():
        if name.startswith("maskcls"):
            roots = {n.partition(".")[0] for n in imported_names(path.read_text(encoding="utf-8"))}
            assert not {"ray", "ray_jobs"} & roots, name


def test_rooms_only_look_down():
    looks_up = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if "." in name
        for other in imports_of(path)
        if "." in other and name.partition(".")[0] == other.partition(".")[0]
        and height(other) > height(name)
    ]  # fmt: skip
    assert not looks_up


def test_no_verb_imports_another():
    verbs = {f"ray_jobs.{verb}" for verb in VERBS} | {
        name for name in MODULES if name.startswith("maskcls.commands.")
    }
    assert not [
        (name, other) for name in verbs for other in imports_of(MODULES[name]) if other in verbs
    ]


def test_there_are_no_circles():
    edges = {name: set(imports_of(path)) for name, path in MODULES.items()}
    while edges:
        free = {name for name, others in edges.items() if not others & edges.keys() - {name}}
        assert free, f"these import each other: {sorted(edges)}"
        edges = {name: others for name, others in edges.items() if name not in free}


def test_every_room_is_known():
    for package, rooms in ROOMS.items():
        found = {
            path.stem
            for path in (ROOT / package).iterdir()
            if path.name not in ("__init__.py", "__pycache__") and path.stem not in VERBS
        }
        assert found <= set(rooms)


def test_files_and_functions_do_one_thing():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 350, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path}: {node.name}"


def test_private_names_of_ray_stand_in_one_file():
    for name, path in MODULES.items():
        if name != "ray_jobs.cluster.ray_internals":
            used = [
                n for n in imported_names(path.read_text(encoding="utf-8"))
                if n.startswith("ray.") and any(part.startswith("_") for part in n.split("."))
            ]  # fmt: skip
            assert not used, f"{name}: {used}"


def run_fresh(code, *arguments):
    """Run code in a new interpreter and return what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_drivers_leave_pytorch_to_their_lanes():
    """Seconds of their start, and 150 MB."""
    code = """
import importlib, json, sys
with_torch = []
for verb in sys.argv[1:]:
    importlib.import_module(f"ray_jobs.{verb}")
    with_torch += [verb] * ("torch" in sys.modules)
print(json.dumps(with_torch))
"""
    assert run_fresh(code, "sweep", "tune", "predict", "compare", "report", "status") == []


def test_maskcls_works_where_ray_is_not_installed():
    # None in sys.modules makes every import of that name fail, by us or by a library we use.
    code = """
import importlib, json, sys
sys.modules["ray"] = sys.modules["ray_jobs"] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sys.argv[1:]))
"""
    names = [name for name in MODULES if name.startswith("maskcls")]
    assert run_fresh(code, *names) == names


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


def test_every_file_has_a_subject():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
    assert not vague & {path.stem for path in FILES}
