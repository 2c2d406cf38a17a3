"""Steps of local runs as forks of one process that has imported what they need: a step starts in milliseconds.

Each step still is a process of its own: what it leaks, breaks or dies of stays with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest import mock

from components.common.progress import ERROR_PREFIX, STEP_PREFIX

_EXECUTOR = "kfp.dsl.executor_main"
PRELOADED = ["pipelines.step_imports"]
# A command ends with `sh -ec SCRIPT CODE ARGUMENTS...`, whose script writes the code to this file, and runs it.
_CODE_FILE = "ephemeral_component.py"


@contextlib.contextmanager
def warm_steps() -> Iterator[None]:
    """While it lasts, kfp's `SubprocessRunner` runs a step's code in a fork instead of in a new interpreter."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # It imports while this process goes on.
    forkserver.ensure_running()

    def run(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        script = next(number for number, part in enumerate(full_command) if _CODE_FILE in part)
        source, *arguments = full_command[script + 1 :]
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_execute, args=(writer, source, arguments, {**os.environ, **(env_vars or {})}))
        process.start()
        writer.close()
        with os.fdopen(os.dup(reader.fileno()), errors="replace") as lines:
            for line in lines:
                print(line, end="")
        process.join()
        code = process.exitcode
        assert code is not None
        if code < 0:
            name = arguments[arguments.index("--function_to_execute") + 1].replace("_", "-")
            print(f"{STEP_PREFIX}{name}\n{ERROR_PREFIX}killed by {signal.Signals(-code).name}")
        return code

    with mock.patch("kfp.local.subprocess_task_handler.run_local_subprocess", run):
        yield


def _execute(output: Connection, source: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Be the interpreter that kfp would have started."""
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    output.close()
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, _CODE_FILE)
        module.write_text(source)
        sys.argv = [_EXECUTOR, "--component_module_path", str(module), *arguments]
        import_module(_EXECUTOR).executor_main()


def _end_with_the_run() -> None:
    """A step whose run was killed must not write beside the run that is started in its place."""
    run = multiprocessing.parent_process()
    assert run is not None
    wait([run.sentinel])
    os._exit(os.EX_TEMPFAIL)
