"""Only `autoencoder rehearse` imports the simulator."""

import ast

from repository import REPOSITORY

PIPELINE = REPOSITORY / "pipeline"
SIMULATOR = "pipeline.kubeflow.simulator"


def _imports_the_simulator(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        if any(f"{name}.".startswith(f"{SIMULATOR}.") for name in names):
            return True
    return False


def test_no_production_code_imports_the_simulator() -> None:
    importers = {
        path.relative_to(PIPELINE).parts[:-1]
        for path in PIPELINE.rglob("*.py")
        if _imports_the_simulator(path.read_text(encoding="utf-8"))
    }
    assert importers == {("commands",), ("kubeflow", "simulator")}
