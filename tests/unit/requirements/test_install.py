"""The first command on machines that differ from ours: stub wheels, local indexes, no index at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPTS = Path("requirements")
CPU_LOCK = ("stub==1.0", "torch==2.13.0")
GPU_LOCK = ("cuda-stub==13.0", "nvidia-stub==13.0", "stub==1.0", "torch==2.13.0", "triton==3.0")
# Like torch, neither build imports without what it depends on, which comes from the lock.
CUDA_BUILD = "import stub, nvidia_stub\nbuild = 'cuda'\n"
CPU_BUILD = "import stub\nbuild = 'cpu'\n"
NOWHERE = "http://localhost:9/simple"


def write_wheel(index: Path, name: str, version: str, code: str = "") -> str:
    """A wheel of one module, in the folder of a simple index; returns its hash."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    folder = index / "simple" / name
    folder.mkdir(parents=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass(frozen=True)
class Indexes:
    """Two package indexes, and the hashes of what is in either, by name and version."""

    cuda: str
    cpu: str
    hashes: dict[str, list[str]]

    def lock(self, pins: tuple[str, ...]) -> str:
        """A lock with hashes."""
        entries = ["".join([pin, *(f" \\\n    --hash=sha256:{digest}" for digest in self.hashes[pin])]) for pin in pins]
        return "\n".join(entries) + "\n"


@pytest.fixture(scope="module")
def indexes(tmp_path_factory) -> Iterator[Indexes]:
    """`cuda` has what most indexes have, `cpu` only CPU builds of torch."""
    root = tmp_path_factory.mktemp("indexes")
    names = (("stub", "1.0"), ("cuda-stub", "13.0"), ("nvidia-stub", "13.0"), ("triton", "3.0"))
    hashes = {f"{name}=={version}": [write_wheel(root / "cuda", name, version)] for name, version in names}
    builds = (("cuda", "2.13.0", CUDA_BUILD), ("cpu", "2.13.0+cpu", CPU_BUILD))
    hashes["torch==2.13.0"] = [write_wheel(root / index, "torch", version, code) for index, version, code in builds]
    with ThreadingHTTPServer(("localhost", 0), partial(_Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://localhost:{server.server_port}"
        yield Indexes(f"{base}/cuda/simple", f"{base}/cpu/simple", hashes)
        server.shutdown()


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


def environment(index: str, cpu_index: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    return {**known, **pip, "TORCH_CPU_INDEX": cpu_index}


def install(
    empty_venv: Path, tmp_path: Path, indexes: Indexes, index: str, cpu_index: str
) -> subprocess.CompletedProcess[str]:
    """Run the script beside stub locks, in an environment of its own."""
    shutil.copytree(empty_venv, tmp_path / "venv", symlinks=True)
    shutil.copy(SCRIPTS / "install_cpu.sh", tmp_path)
    (tmp_path / "cpu.lock").write_text(indexes.lock(CPU_LOCK))
    (tmp_path / "gpu.lock").write_text(indexes.lock(GPU_LOCK))
    command = [tmp_path / "install_cpu.sh", tmp_path / "venv/bin/python"]
    return subprocess.run(command, env=environment(index, cpu_index), capture_output=True, text=True, check=False)


def installed(tmp_path: Path) -> set[str]:
    command = [tmp_path / "venv/bin/python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split("==")[0] for line in printed.split()} - {"pip", "setuptools", "wheel"}


def build_of(tmp_path: Path) -> str:
    command = [tmp_path / "venv/bin/python", "-c", "import torch; print(torch.build)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_cpu_build_is_taken_where_pytorch_s_index_has_it(empty_venv, tmp_path, indexes):
    done = install(empty_venv, tmp_path, indexes, indexes.cuda, indexes.cpu)
    assert done.returncode == 0, done.stderr
    assert build_of(tmp_path) == "cpu" and installed(tmp_path) == {"torch", "stub"} and done.stdout == ""


@pytest.mark.parametrize("cpu_index", [NOWHERE, ""])
def test_cuda_build_gets_its_libraries_where_no_index_has_another(empty_venv, tmp_path, indexes, cpu_index):
    done = install(empty_venv, tmp_path, indexes, indexes.cuda, cpu_index)
    assert done.returncode == 0, done.stderr
    assert build_of(tmp_path) == "cuda"
    assert installed(tmp_path) == {"torch", "stub", "nvidia-stub", "cuda-stub", "triton"}
    assert done.stdout.count("\n") == 1 and "this torch is a CUDA build: adding the NVIDIA libraries" in done.stdout


def test_no_index_is_said_in_one_line(empty_venv, tmp_path, indexes):
    done = install(empty_venv, tmp_path, indexes, NOWHERE, NOWHERE)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: pip finds no torch==2.13.0. Point PIP_INDEX_URL")


def test_package_that_is_not_the_locked_one_is_refused(empty_venv, tmp_path, indexes):
    other = {**indexes.hashes, "stub==1.0": ["0" * 64]}
    done = install(empty_venv, tmp_path, replace(indexes, hashes=other), indexes.cuda, indexes.cpu)
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr


def fake_command(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def make_venv(tmp_path: Path, python: Path) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = [SCRIPTS / "make_venv.sh", python, tmp_path / "venv"]
    return subprocess.run(command, env=known, capture_output=True, text=True, check=False)


def test_uv_makes_the_environment_where_python_is_another(tmp_path):
    other = fake_command(tmp_path, "python3", "echo 3.13")
    fake_command(tmp_path, "uv", f'echo "$@" > {tmp_path}/asked; mkdir -p "${{@: -1}}/bin"')
    done = make_venv(tmp_path, other)
    assert done.returncode == 0 and "uv makes the environment" in done.stdout
    assert (tmp_path / "asked").read_text() == f"venv --quiet --seed --python 3.11 {tmp_path}/venv\n"


@pytest.mark.parametrize(("script", "version"), [("echo 3.13", "3.13"), ("exit 127", "none")])
def test_another_python_without_uv_is_told_the_one_command(tmp_path, script, version):
    done = make_venv(tmp_path, fake_command(tmp_path, "python3", script))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: Python 3.11 is needed, python3 here is {version}.")
    assert done.stderr.endswith("pip install uv\n") and done.stderr.count("\n") == 1


def test_python_without_venv_is_told_the_one_command(tmp_path):
    python = fake_command(tmp_path, "python3.11", '[[ $1 == -c ]] && echo 3.11 || { echo "no ensurepip" >&2; exit 1; }')
    done = make_venv(tmp_path, python)
    assert done.returncode == 1 and "apt install python3.11-venv" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_environment_that_is_there_is_kept(tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    fake_command(tmp_path / "venv/bin", "python", "exit 0")
    assert make_venv(tmp_path, fake_command(tmp_path, "python3", "exit 1")).returncode == 0
