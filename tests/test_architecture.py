"""Imports point one way: from the command line down to the ground floor, and between rooms only where listed here."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import REPOSITORY

GROUND = ("schema", "runtime", "images")
PACKAGES = (*GROUND, "components", "trainer", "serving", "pipeline")
ALLOWED = {
    "schema": (),
    "runtime": ("schema",),
    "images": ("schema", "runtime"),
    "components": GROUND,
    "components.settings": GROUND,
    "components.pusher": GROUND,
    "components.resolvers": (*GROUND, "components.pusher.destination"),
    "components.sources": (*GROUND, "components.settings"),
    "components.example_gen": (*GROUND, "components.settings", "components.sources"),
    "components.example_validator": (
        *GROUND, "components.settings", "components.sources", "components.resolvers", "components.pusher.destination",
    ),
    "components.evaluation": (*GROUND, "components.settings"),
    "components.report": (*GROUND, "components.settings"),
    "trainer": (*GROUND, "trainer"),
    "trainer.settings": GROUND,
    "trainer.families": (*GROUND, "trainer.settings", "trainer.backbones"),
    "trainer.backbones": (*GROUND, "trainer.settings"),
    "trainer.data": (*GROUND, "trainer.settings"),
    "trainer.scoring": (*GROUND, "trainer.settings"),
    "trainer.export": (*GROUND, "trainer.settings", "trainer.families", "trainer.data", "trainer.scoring"),
    "trainer.fitting": (
        *GROUND, "trainer.settings", "trainer.families", "trainer.data", "trainer.scoring", "trainer.worker",
    ),  # the program of the other machines
    "serving": (*GROUND, "serving.model", "serving.exporting.runtimes"),
    "serving.model": (*GROUND, "serving.errors", "serving.score_log"),
    "serving.exporting": (*GROUND, "serving.model"),
    "serving.server": (*GROUND, "serving.errors", "serving.score_log", "serving.model", "serving.server.settings"),
    "serving.server.settings": GROUND,
    "serving.watching": (
        *GROUND, "serving.client", "serving.errors", "serving.image_files", "serving.model.image_inputs",
        "serving.model.versions", "serving.overlays", "serving.score_log", "serving.scoring", "serving.server.logs",
        "serving.server.metrics",
    ),
    "serving.reviewing": (
        *GROUND, "serving.errors", "serving.image_files", "serving.model", "serving.score_log", "serving.server",
    ),
    "pipeline": (),
    "pipeline.packages": (),
    "pipeline.__main__": ("pipeline.packages", "pipeline.cli"),
    "pipeline.cli": (*GROUND, "pipeline.commands"),
    "pipeline.errors": GROUND,
    "pipeline.states": (),
    "pipeline.terminal": (*GROUND, "pipeline.states"),
    "pipeline.metadata": GROUND,
    "pipeline.configuration": (*GROUND, "pipeline.metadata.store", "components.settings", "trainer.settings"),
    "pipeline.graph": (*GROUND, "pipeline.configuration", "components", "trainer", "serving.model.smoke_check"),
}  # fmt: skip
ALLOWED["pipeline.local"] = (
    *GROUND, "components", "trainer", "serving", "pipeline.configuration", "pipeline.metadata", "pipeline.graph",
    "pipeline.errors", "pipeline.states", "pipeline.terminal", "pipeline.packages", "pipeline.__main__",
)  # fmt: skip
_KUBEFLOW = (
    *GROUND, "pipeline.kubeflow", "pipeline.configuration", "pipeline.metadata", "pipeline.states", "trainer.worker",
)  # fmt: skip
ALLOWED |= {
    "pipeline.kubeflow": _KUBEFLOW,
    "pipeline.kubeflow.client": _KUBEFLOW,
    "pipeline.kubeflow.compile": (*_KUBEFLOW, "pipeline.graph", "components", "trainer", "serving"),
    "pipeline.kubeflow.pods": (*_KUBEFLOW, "components", "trainer", "serving"),
    "pipeline.kubeflow.simulator": _KUBEFLOW,
}
ALLOWED["pipeline.commands"] = (
    *ALLOWED["pipeline.local"], "pipeline.local", "pipeline.kubeflow.client", "pipeline.kubeflow.compile",
    "pipeline.kubeflow",
)  # fmt: skip
SIMULATOR = "pipeline.kubeflow.simulator"
SIMULATORS_USERS = (SIMULATOR, "pipeline.commands.rehearse")
"""Everything else, production code above all, must not import the simulator."""


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ALLOWED if is_within(module, room)), key=len)


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module: str, root: Path) -> bool:
    path = root.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def our_imports(path: Path, root: Path) -> Iterator[str]:
    """Every module of ours that a file imports, or names in a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if exists(name, root) else node.module for name in inner]
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)+", node.value)
        ):
            names = [node.value] if exists(node.value, root) else []
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def upward_imports(root: Path) -> list[str]:
    """Every import below `root` that ALLOWED does not list, as "module imports module"."""
    found = []
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        module = module_of(path, root)
        room = room_of(module)
        for imported in our_imports(path, root):
            is_allowed = room_of(imported) == room or any(is_within(imported, allowed) for allowed in ALLOWED[room])
            if is_within(imported, SIMULATOR):
                is_allowed = any(is_within(module, user) for user in SIMULATORS_USERS)
            if not is_allowed:
                found.append(f"{module} imports {imported}")
    return sorted(set(found))


def test_every_import_points_downwards() -> None:
    assert "\n".join(upward_imports(REPOSITORY)) == ""


def test_every_listed_room_exists() -> None:
    rooms = {*ALLOWED, *SIMULATORS_USERS, *(room for allowed in ALLOWED.values() for room in allowed)}
    assert [room for room in sorted(rooms) if not exists(room, REPOSITORY)] == []


@pytest.mark.parametrize(
    ("module", "line", "imported"),
    [
        ("trainer/module.py", "import pipeline.graph", "pipeline.graph"),
        ("schema/features.py", "from runtime import errors", "runtime.errors"),
        ("components/sources/idx.py", "from components.report.page import write", "components.report.page"),
        ("components/settings.py", "from components import sources", "components.sources"),
        ("serving/model/host.py", "from serving.server.rest import answer", "serving.server.rest"),
        ("serving/client.py", "from components.settings import X", "components.settings"),
        ("pipeline/local/run.py", "from pipeline.commands.run import run", "pipeline.commands.run"),
        ("components/pusher/component.py", "MODULE = 'serving.client'", "serving.client"),
        ("pipeline/kubeflow/client/client.py", f"from {SIMULATOR}.driver import typed", f"{SIMULATOR}.driver"),
        ("pipeline/commands/submit.py", "from pipeline.kubeflow import simulator", SIMULATOR),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, module: str, line: str, imported: str) -> None:
    for name in (module, f"{imported.replace('.', '/')}.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / module).write_text(f"def function():\n    {line}\n")
    assert upward_imports(tmp_path) == [f"{module.removesuffix('.py').replace('/', '.')} imports {imported}"]


def test_the_rehearse_command_may_import_the_simulator(tmp_path: Path) -> None:
    for name in ("pipeline/commands/rehearse.py", f"{SIMULATOR.replace('.', '/')}/rehearsal.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"from {SIMULATOR} import rehearsal\n")
    assert upward_imports(tmp_path) == []


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = {"pydantic", "rich", "numpy", "tensorflow", "tfx", "apache_beam"}
    program = f"import sys, pipeline.cli; print(sorted({heavy} & set(sys.modules)))"
    started = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert started.stdout == "[]\n"
