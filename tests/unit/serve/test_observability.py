"""What the tiers say of versions that went."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from components.serve import observability
from components.serve.loading import UnloadedVersions


@pytest.fixture
def of_versions():
    """Every metric of ours with a version; what the test adds goes again."""
    metrics = [value for value in vars(observability).values() if isinstance(value, MetricWrapperBase)]
    labelled = [metric for metric in metrics if "version" in metric._labelnames]
    assert len(labelled) > 10
    yield labelled
    for metric in labelled:
        for version in "abcd":
            metric.remove_by_labels({"version": f"digest_{version}"})


def count(of_versions, version):
    for metric in of_versions:
        metric.labels(**{**dict.fromkeys(metric._labelnames, "x"), "version": version})


def test_all_series_of_a_version_go_when_two_others_went_after_it(of_versions):
    unloaded = UnloadedVersions("tier")
    for version in ("digest_a", "digest_b", "digest_c"):
        count(of_versions, version)
        unloaded.add(version, {"digest_d"})
    page = generate_latest().decode()
    assert "digest_a" not in page
    assert page.count("digest_b") == page.count("digest_c") >= len(of_versions)


def test_version_that_is_loaded_again_keeps_its_series(of_versions):
    unloaded = UnloadedVersions("tier")
    for version in ("digest_a", "digest_b", "digest_c"):
        count(of_versions, version)
        unloaded.add(version, {"digest_a"})
    assert "digest_a" in generate_latest().decode()
