"""The house's plan: imports point one way, in no circle; files are short; a name means one thing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

# What each folder may import beside itself; docs/architecture.md draws it.
BELOW: dict[str, set[str]] = {
    "components.common": set(),
    "components.features": {"components.common"},
    "components.tables": {"components.common", "components.features"},
    "components.ranker": {"components.common", "components.features", "components.tables"},
    "components.version": {"components.common", "components.features"},
    "components.sources": {"components.common", "components.features"},
    **dict.fromkeys(
        ("components.join", "components.collect_edges", "components.gate", "data_validation"),
        {"components.common", "components.features"},
    ),
    **dict.fromkeys(
        ("components.make_logs", "components.schedule"),
        {"components.common", "components.features", "components.sources"},
    ),
    "components.online": {"components.common", "components.features", "components.join"},
    "components.engagement": {"components.common", "components.features", "components.tables"},
    **dict.fromkeys(
        ("components.train", "components.pretrain"),
        {
            "components.common",
            "components.features",
            "components.tables",
            "components.ranker",
            "components.engagement",
        },
    ),
    **dict.fromkeys(
        ("components.publish", "components.serve", "components.report"),
        {"components.common", "components.features", "components.version"},
    ),
    **dict.fromkeys(
        ("components.evaluate", "components.export"),
        {
            "components.common",
            "components.features",
            "components.tables",
            "components.ranker",
            "components.version",
        },
    ),
}
ROOTS = ("components", "data_validation", "pipelines", "cli")
# Of a step, pipelines see its configuration and call its `run`.
DECLARATIONS = {"run", "config", "presets"}
ASKED_BY_PIPELINES = {"data_validation.examples.schema"}
# These stand for the same thing in every folder.
SHARED_NAMES = {"__init__.py", "__main__.py", "config.py", "run.py", "validate.py"}


def paths() -> list[Path]:
    return sorted(path for root in ROOTS for path in Path(root).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def folder_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "components" and len(parts) > 1 else parts[0]


def imports_of(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def house_imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the house that a file imports anywhere, also within functions."""
    return imports_of(ast.parse(path.read_text())) & known


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """By module of the house, which of its modules it imports."""
    known = {module_of(path) for path in paths()}
    return {module_of(path): house_imports(path, known) for path in paths()}


def test_every_folder_has_its_place(imported):
    folders = {folder_of(module) for module in imported} - {"components", "pipelines", "cli"}
    assert folders == BELOW.keys()


@pytest.mark.parametrize("folder", BELOW)
def test_folder_imports_only_what_is_below_it(imported, folder):
    allowed = BELOW[folder] | {folder, "components"}
    for module, names in imported.items():
        if folder_of(module) == folder:
            assert {name for name in names if folder_of(name) not in allowed} == set(), module


def test_what_is_below_is_below_in_turn():
    for folder, below in BELOW.items():
        for other in below:
            assert BELOW[other] <= below and folder not in BELOW[other]


def test_pipelines_call_what_steps_run(imported):
    for module, names in imported.items():
        if folder_of(module) == "pipelines":
            of_steps = names - BELOW.keys() - ASKED_BY_PIPELINES
            hidden = {
                name
                for name in of_steps
                if folder_of(name) not in {"pipelines", "components", "components.common", "components.features"}
                and name.rsplit(".", 1)[-1] not in DECLARATIONS
            }
            assert hidden <= {"data_validation.examples"}, module


def test_nothing_imports_the_command_line(imported):
    for module, names in imported.items():
        if folder_of(module) != "cli":
            assert not [name for name in names if folder_of(name) == "cli"], module


def test_no_modules_import_each_other_in_a_circle(imported):
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in finished:
            # A package's own file is imported with any of its modules.
            for name in imported[module] - {module}:
                visit(name, (*way, module))
            finished.add(module)

    for module in imported:
        visit(module, ())


def test_steps_know_nothing_of_kfp():
    for path in [*Path("components").rglob("*.py"), *Path("data_validation").rglob("*.py")]:
        assert not any(name.split(".")[0] == "kfp" for name in imports_of(ast.parse(path.read_text()))), path


def test_files_are_short():
    lengths = {
        str(path): path.read_text().count("\n") for root in (*ROOTS, "tests") for path in Path(root).rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_one_name_means_one_thing():
    names = Counter(path.name for path in paths() if path.name not in SHARED_NAMES)
    assert [name for name, count in names.items() if count > 1] == []


def test_versions_and_servers_need_no_torch_and_no_beam():
    code = (
        "import sys, components.version.predictor, components.serve.ranker_server, components.serve.embedding_server, "
        "cli.serve; print(sorted({'torch', 'apache_beam', 'kfp'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"


def test_joining_needs_no_torch():
    code = (
        "import sys, components.join.run, data_validation.run, components.make_logs.run, pipelines.work; "
        "print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "False\n"
