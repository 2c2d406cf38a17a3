"""Rewrites the golden files; review the difference before committing it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.ranker.ranker import Ranker
from pipelines.compile import compile_pipelines
from pipelines.config import load_config

GOLDEN = Path(__file__).parent


def without_versions(text: str) -> str:
    """A compiled pipeline without the line that names the SDK's version."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("sdkVersion"))


def main() -> None:
    """Compile the pipelines and list the model's parameters."""
    with tempfile.TemporaryDirectory() as folder:
        for path in compile_pipelines(Path(folder)):
            (GOLDEN / path.name).write_text(without_versions(path.read_text()))
    config = load_config("simulator")
    names = sorted(Ranker(config.features, config.arms["baseline"].model).state_dict())
    (GOLDEN / "parameter_names.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    main()
