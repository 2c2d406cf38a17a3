"""Imports point one way: common <- a step's logic <- its component <- pipelines."""

import ast
from pathlib import Path

import pytest

STEPS = sorted(path.name for path in Path("components").iterdir() if path.is_dir() and path.name != "__pycache__")
# What a step may import beside itself and `common`.
ALLOWED = {
    "evaluate": {"train"},
    "export": {"train", "evaluate", "serve"},
}


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("step", STEPS)
def test_step_imports_only_common_and_exceptions(step):
    allowed = {step, "common"} | ALLOWED.get(step, set())
    for path in Path("components", step).rglob("*.py"):
        for module in imported_modules(path):
            assert not module.startswith(("pipelines", "data_validation")), f"{path} imports {module}"
            if module.startswith("components."):
                assert module.split(".")[1] in allowed, f"{path} imports {module}"


def test_data_validation_imports_only_common():
    for path in Path("data_validation").rglob("*.py"):
        for module in imported_modules(path):
            if module.startswith(("components.", "pipelines")):
                assert module.startswith("components.common"), f"{path} imports {module}"


def test_only_components_import_kfp():
    paths = [*Path("components").rglob("*.py"), *Path("data_validation").rglob("*.py")]
    for path in paths:
        if any(module.split(".")[0] == "kfp" for module in imported_modules(path)):
            assert path.name == "component.py" or path == Path("components/common/step.py"), path


def test_serving_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, components.serve.predictor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
