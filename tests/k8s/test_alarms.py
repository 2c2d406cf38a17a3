"""When each alarm comes, as Prometheus itself computes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

RULES = Path("k8s/components/serving-monitoring/rules.yaml")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
def test_alarms_come_when_they_should_and_only_then(tmp_path):
    rules = yaml.safe_load(RULES.read_text())["spec"]
    cases = yaml.safe_load(Path("tests/k8s/alarms.yaml").read_text())
    (group,) = rules["groups"]
    named = {case["alertname"] for test in cases["tests"] for case in test["alert_rule_test"]}
    assert named == {rule["alert"] for rule in group["rules"]}
    for rule in group["rules"]:
        # Their texts are for people.
        del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({**cases, "rule_files": ["rules.yaml"]}))
    found = subprocess.run(
        ["promtool", "test", "rules", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
