"""The cluster that tests are given by KUBECONFIG, if any."""

from __future__ import annotations

import functools
import subprocess

import pytest
import yaml

NAMESPACE = "afterclick-test"


def kubectl(*arguments: str, given: str | None = None) -> str:
    """What kubectl prints."""
    found = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"kubectl {' '.join(arguments)}: {found.stderr}"
    return found.stdout


def address_for_pods() -> str:
    """The address by which pods reach this machine: the API server of a cluster on it listens there, too."""
    config = yaml.safe_load(kubectl("config", "view", "--minify", "-o", "yaml"))
    return config["clusters"][0]["cluster"]["server"].partition("://")[2].partition(":")[0]


@functools.cache
def why_none() -> str:
    """Why there is no cluster to test on; empty if there is one."""
    try:
        asked = ["kubectl", "get", "--raw", "/readyz", "--request-timeout=5s"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "kubectl is not installed"
    return "" if answer.returncode == 0 else f"none answers: {answer.stderr.strip()[:200]}"


needs_cluster = pytest.mark.skipif(bool(why_none()), reason=f"needs a Kubernetes cluster: {why_none()}")
