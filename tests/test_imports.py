"""Who may import whom (the rooms of the house), and the wall around TensorFlow and seqio."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Room -> rooms it may import besides itself; every room may import the foundation.
ALLOWED = {
    "languages": set(),
    "registry": set(),
    "children": set(),  # processes and their parents
    "storage_errors": set(),
    "configuration": {"gin_bindings"},
    "gin_bindings": set(),
    "sweep": {"configuration"},
    "ops": set(),
    "parallel": set(),
    "models": {"ops", "parallel"},
    "objectives": {"models", "ops"},
    "data": set(),
    "alignment": {"ops", "data"},
    "preparation": {"data", "tasks"},  # its workers register the tasks they read
    "training": {"objectives", "models", "ops", "parallel", "data", "planning"},
    "evaluation": {"objectives", "models", "ops", "parallel", "data"},
    "planning": {"models", "parallel", "training", "data"},
    "report": {"planning", "data", "configuration"},
    "interop": {"models", "ops", "parallel", "data"},
    "tasks": {"preparation", "data"},
    "configs": set(),
}
FOUNDATION = {"languages", "registry", "children", "storage_errors"}


def _modules():
    found = []
    for folder, package in (("xlmjax", ""), ("tasks", "tasks"), ("configs", "configs")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            room = package or parts[0]
            found.append(pytest.param(path, room, id=str(path.relative_to(ROOT))))
    return found


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("path", "room"), _modules())
def test_imports_run_downwards(path, room):
    imported = {tuple(name.split(".")) for name in _imports(path)}
    rooms = {name[1] for name in imported if name[0] == "xlmjax" and len(name) > 1}
    if room in ALLOWED:
        assert rooms <= ALLOWED[room] | FOUNDATION | {room}
    if room not in ("preparation", "tasks"):
        assert not {name[0] for name in imported} & {
            "tensorflow",
            "seqio",
            "tensorflow_datasets",
            "tensorflow_text",
        }


def test_every_room_has_a_rule():
    rooms = {path.stem for path in (ROOT / "xlmjax").iterdir() if path.name != "__pycache__"}
    # What may import everything: the top of the house.
    assert rooms - set(ALLOWED) == {
        "__init__",
        "auto_prepare",
        "cli",
        "commands",
        "completion",
        "conversion",
        "description",
        "dry_run",
        "embedding",
        "experiment",
        "side_by_side",
        "throughput",
        "train",
        "trained",
        "translation",
    }


def test_training_and_evaluation_run_without_tensorflow_and_torch():
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'tensorflow_text',\n"
        "             'torch', 'transformers', 'safetensors'):\n"
        "    sys.modules[name] = None\n"  # an import of it raises ImportError
        "import xlmjax.train, xlmjax.evaluation.perplexity, xlmjax.planning.mixture_plan\n"
        "import xlmjax.commands.train, xlmjax.commands.eval, xlmjax.commands.plan\n"
        "import xlmjax.embedding, xlmjax.commands.embed\n"
        "import xlmjax.translation, xlmjax.commands.translate\n"
        "import xlmjax.trained, xlmjax.commands.vectors\n"
        "import xlmjax.conversion, xlmjax.commands.convert\n"
        "import xlmjax.dry_run, xlmjax.planning.search, xlmjax.commands.fit\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_configs_and_tasks_refuse_a_second_name():
    for name in ("configs", "tasks"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode
        assert f"xlmjax.{name}" in done.stderr
