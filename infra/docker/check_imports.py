"""Run in an image as `python - torch,apache_beam cli.main <check_imports.py`: what it lacks, and what it imports."""

import importlib
import importlib.util
import sys

absent, modules = sys.argv[1].split(","), sys.argv[2:]
if there := [name for name in absent if importlib.util.find_spec(name)]:
    sys.exit(f"error: this image holds {', '.join(there)}")
for module in modules:
    importlib.import_module(module)
print(f"imports {len(modules)} modules; without {', '.join(absent)}")
