"""What the docs point at is there."""

import re
from pathlib import Path

import pytest

DOCS = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))]
ROOTS = (Path(), Path("components"))


def expanded(path: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    braces = re.search(r"\{([^}]*)\}", path)
    if braces is None:
        return [path]
    return [path.replace(braces[0], choice) for choice in braces[1].split(",")]


@pytest.mark.parametrize("page", DOCS, ids=str)
def test_linked_files_are_there(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", DOCS, ids=str)
def test_code_files_that_are_named_are_there(page):
    named = re.findall(r"`([\w./{},]+\.(?:py|sh|lock|yaml|jinja))`", page.read_text())
    paths = [path for name in named if "/" in name for path in expanded(name)]
    assert [path for path in paths if not any((root / path).exists() for root in ROOTS)] == []


def test_make_targets_that_are_named_are_there():
    targets = set(re.findall(r"^([a-z0-9-]+):", Path("Makefile").read_text(), re.M))
    named = {name for page in DOCS for name in re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.M)}
    assert named - targets == set()


@pytest.mark.parametrize("page", DOCS, ids=str)
def test_tests_that_are_named_are_there(page):
    sources = "".join(path.read_text() for path in Path("tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page.read_text())
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_lines_of_the_worked_examples_are_those_of_their_files():
    kept = {line.strip() for path in Path("docs/examples").glob("*.yaml") for line in path.read_text().splitlines()}
    blocks = re.findall(r"```yaml\n(.*?)```", Path("docs/worked_examples.md").read_text(), re.S)
    quoted = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert [line for line in quoted if line not in kept] == [] and len(quoted) > 10
