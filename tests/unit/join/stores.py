"""Stores with clean logs that a test may change, and the join of some of their days."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from components.common import parquet_files, storage
from components.common.manifests import read_manifest, write_artifact
from components.features.examples import read_examples
from components.features.log_manifests import LOG_FILE, CleanLogManifest
from components.join.assemble import JoinJob


def examples(store, split, day):
    return read_examples(store, split, day)[0]


def rewrite(store, log_name, day, change):
    """Change a day of clean logs, manifest and all."""
    uri = store.clean_logs(log_name, day)
    manifest = read_manifest(uri, CleanLogManifest)
    table = change(parquet_files.read_parquet(storage.join_uri(uri, LOG_FILE)))
    write_artifact(
        uri,
        manifest.model_copy(update={"rows": table.num_rows}),
        lambda staged: parquet_files.write_parquet(storage.join_uri(staged, LOG_FILE), table),
    )


def job_of(deployment, first, last, **changes):
    config = deployment.config
    as_of = config.dataset.mature_on(last) + timedelta(days=1)
    return replace(JoinJob(config.dataset, config.features, config.join, first, last, as_of, first), **changes)
