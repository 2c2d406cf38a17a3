"""Alarms, dashboard and autoscaler ask for nothing that the servers do not say."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.serve import observability

MONITORING = Path("k8s/components/serving-monitoring")
# Prometheus adds them to all that it reads.
_TARGET = {"namespace", "pod", "service"}
_OTHERS = {"up": set(), "kube_pod_container_resource_limits": {"resource"}}
# Of servers with certificates; test_security.py reads them.
_OF_TLS = {
    gauge._name: set(gauge._labelnames) for gauge in (observability.EXPIRES_AT, observability.CREDENTIALS_REFUSED)
}


@pytest.fixture(scope="module")
def said(servers, client, published) -> dict[str, set[str]]:
    """Every series of both tiers' /metrics once they have answered, with its labels."""
    client.rank(published.requests[0])
    found: dict[str, set[str]] = {}
    for server in servers:
        with urllib.request.urlopen(f"http://localhost:{server.http_port}/metrics") as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alarms() -> list[dict]:
    (group,) = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    return group["rules"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alarms())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_every_metric_and_label_that_is_asked_for_is_there(said):
    asked = list(expressions())
    assert len(asked) > 15
    known = said | _OTHERS | _OF_TLS
    for expression in asked:
        series = re.findall(
            r"\b((?:afterclick_|kube_|up\b)\w*)(?:\{([^}]*)\})?", re.sub(r'"afterclick[^"]*"', '""', expression)
        )
        assert series, expression
        for name, matchers in series:
            assert name in known, name
            assert set(re.findall(r"(\w+)\s*[!=]", re.sub(r'"[^"]*"', '""', matchers))) <= known[name] | _TARGET, (
                expression
            )
        labels = {label for name, _ in series for label in known[name]} | _TARGET
        grouped = {
            text for found in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression) for text in re.findall(r"\w+", found)
        }
        assert grouped <= labels, expression


def test_codes_that_are_asked_for_are_those_of_grpc():
    import grpc

    codes = {
        code for text in expressions() for found in re.findall(r'code=~?"([^"]*)"', text) for code in found.split("|")
    }
    assert {"INTERNAL", "FAILED_PRECONDITION", "UNAVAILABLE", "DEADLINE_EXCEEDED"} <= codes
    assert codes <= {code.name for code in grpc.StatusCode}


def test_every_alarm_is_explained():
    page = Path("docs/serving_cluster.md").read_text()
    assert [rule["alert"] for rule in alarms() if f"`{rule['alert']}`" not in page] == []
