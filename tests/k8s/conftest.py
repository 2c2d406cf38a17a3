"""What is tried on a real cluster: images of this tree, the test overlay, and a store on S3 that pods reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.cluster import NAMESPACE, address_for_pods, kubectl
from tests.s3 import S3Server, s3_server

IMAGES = ("localhost/afterclick/beam:0.1.0", "localhost/afterclick/train:0.1.0")
SERVE_IMAGE = "localhost/afterclick/serve:0.1.0"
SERVING = "app.kubernetes.io/part-of=afterclick-serving"


def _containerd() -> list[str]:
    """The command that lists and takes in the node's images, where the node is on this machine."""
    socket = Path(os.environ.get("KUBECONFIG", "")).parent / "cd/c.sock"
    return ["ctr", "-a", str(socket), "-n", "k8s.io", "image"]


def _import(image: str, folder: Path) -> None:
    """Bring an image that buildah built to the node."""
    archive = folder / "image.tar"
    subprocess.run(["buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}"], check=True)
    subprocess.run([*_containerd(), "import", str(archive)], check=True, capture_output=True)
    archive.unlink()


def _bring(images: tuple[str, ...], folder: Path) -> None:
    """Images that `make images` built, to the node; skips where they are not built."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    known = subprocess.run(["buildah", "images", "--json"], capture_output=True, text=True, check=True).stdout
    built = {name for image in json.loads(known) for name in image.get("names") or []}
    missing = [image for image in images if image not in built]
    if missing:
        pytest.skip(f"{missing[0]} is not built: make images PREFIX=localhost/afterclick LOCK=cpu.lock")
    for image in images:
        _import(image, folder)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images of the steps, on the node."""
    _bring(IMAGES, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def serve_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The servers' image, on the node."""
    _bring((SERVE_IMAGE,), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def node_store() -> Iterator[S3Server]:
    """A store on the address of this machine that pods reach."""
    with s3_server(address_for_pods()) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The objects of the test overlay, with the images that are built here, and TLS between servers."""
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath("k8s/overlays/test", folder)],
                "components": [os.path.relpath("k8s/components/serving-tls", folder)],
                "images": [
                    {"name": f"afterclick/{name}", "newName": f"localhost/afterclick/{name}"}
                    for name in ("beam", "train", "serve")
                ],
            }
        )
    )
    return kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder))


@pytest.fixture(scope="session")
def namespace(node_store: S3Server, overlay: str) -> Iterator[str]:
    """The test overlay, but servers, in a namespace of its own that enforces the restricted Pod Security Standard."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")
    kubectl("apply", "-f", "-", "-l", SERVING.replace("=", "!="), given=overlay)
    literals = [f"--from-literal={name}={value}" for name, value in node_store.environment.items()]
    kubectl("-n", NAMESPACE, "create", "secret", "generic", "afterclick-store", *literals)
    yield NAMESPACE
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")
