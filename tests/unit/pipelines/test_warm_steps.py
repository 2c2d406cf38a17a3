"""Steps as forks of one process: values come back, failures stay with the step, and no step outlives its run."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import local

from pipelines.steps import step
from pipelines.warm_steps import warm_steps

_SECONDS = 60


@step
def double(number: int) -> int:
    """A step that works."""
    import os
    import sys

    assert "torch" in sys.modules, "the process that it is forked from has imported what steps need"
    print(f"this is step {os.getpid()}")
    return 2 * number


@step
def die(number: int) -> int:
    """A step that is killed, as by a machine without memory."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return number


@step
def wait(path: str):
    """A step that says where it is, and never ends."""
    import os
    import signal

    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
    signal.pause()


@pytest.fixture()
def runner(tmp_path):
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    with warm_steps():
        yield


def test_killed_step_leaves_the_next_one_alone(runner, capsys):
    with pytest.raises(RuntimeError, match="die"):
        die(number=1)
    assert "killed by SIGKILL" in capsys.readouterr().out
    assert double(number=21).output == 42
    assert "this is step" in capsys.readouterr().out


def test_step_ends_with_its_run(tmp_path):
    told = tmp_path / "pid"
    os.mkfifo(told)
    code = f"""
from kfp import local
from tests.unit.pipelines.test_warm_steps import wait, warm_steps

if __name__ == "__main__":
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root={str(tmp_path)!r})
    with warm_steps():
        wait(path={str(told)!r})
"""
    script = Path(tmp_path, "run.py")
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL, env=environment)
    said = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([said], [], [], _SECONDS)[0], "the step does not begin"
    process = os.pidfd_open(int(os.read(said, 20)))
    run.send_signal(signal.SIGKILL)
    run.wait()
    ended, _, _ = select.select([process], [], [], _SECONDS)
    assert ended, "the step goes on without its run"
