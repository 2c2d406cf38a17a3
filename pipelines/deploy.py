"""Installs the pipelines and their schedule in Kubeflow Pipelines; whatever is there already stays as it is."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.common.digests import digest_bytes
from components.common.errors import InputError
from components.common.layout import Store
from components.common.releases import BATCH, PRETRAINING
from pipelines.compile import compile_pipelines, uploaded_name
from pipelines.config import RunConfig

DAILY_SCHEDULE, PRETRAINING_SCHEDULE = "afterclick-daily", "afterclick-pretraining"
FIRST_BATCH = "afterclick-batch"
_PAGE = 100
# Where a pod finds a token for Kubeflow Pipelines, which asks for one in multi-user mode.
_TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"
_ACTIVE = ("PENDING", "RUNNING", "PAUSED", "CANCELING")


@dataclass
class Deployment:
    """What is to be in Kubeflow Pipelines, and the client that talks to it.

    Attributes:
        client: Of its API server.
        config: The deployment's configuration.
        store_uri: Its store.
        dry_run: Only say what would be done.
    """

    client: kfp.Client
    config: RunConfig
    store_uri: str
    dry_run: bool = False

    @classmethod
    def connect(cls, host: str, config: RunConfig, store_uri: str, dry_run: bool = False) -> Deployment:
        """With a client of an API server; of this cluster's, or by kubectl's context, if `host` is empty.

        Raises:
            InputError: If it does not answer.
        """
        with _naming_refusals():
            token = os.environ.get(_TOKEN_PATH)
            credentials = ServiceAccountTokenVolumeCredentials(path=token) if token and Path(token).exists() else None
            client = kfp.Client(host=host or None, namespace=config.cluster.namespace, credentials=credentials)
            return cls(client, config, store_uri, dry_run)

    def install(self) -> Iterator[str]:
        """Bring everything up to date; yields a line on each thing: what was done with it, or that it is there.

        Raises:
            InputError: If the API server does not answer, or refuses something.
        """
        with _naming_refusals():
            yield from self._install()

    def _install(self) -> Iterator[str]:
        config_uri = "CONFIG" if self.dry_run else self.config.write(Store(self.store_uri))
        yield f"configuration: {config_uri}"
        experiment_id = self._experiment()
        yield f"experiment {self.config.cluster.experiment}: {'is there' if experiment_id else 'made'}"
        if not experiment_id and not self.dry_run:
            made = self.client.create_experiment(self.config.cluster.experiment, namespace=self._namespace)
            experiment_id = made.experiment_id
        parameters = {"store_uri": self.store_uri, "config_uri": config_uri}
        versions = {}
        with tempfile.TemporaryDirectory() as folder:
            for path in compile_pipelines(Path(folder), cluster=self.config.cluster, arms=[*self.config.arms]):
                if path.stem == PRETRAINING and self.config.pretrain is None:
                    continue
                versions[path.stem], said = self._pipeline(path)
                yield said
        daily, cluster = versions["daily_training"], self.config.cluster
        yield self._schedule(experiment_id, DAILY_SCHEDULE, daily, parameters, cluster.daily_cron)
        weekly = versions.get(PRETRAINING)
        if weekly is not None:
            yield self._schedule(experiment_id, PRETRAINING_SCHEDULE, weekly, parameters, cluster.pretraining_cron)
        yield self._first_batch(experiment_id, versions["batch_training"], parameters)

    @property
    def _namespace(self) -> str | None:
        # Kubeflow's own namespace stands for an installation without profiles.
        namespace = self.config.cluster.namespace
        return None if namespace == "kubeflow" else namespace

    def _experiment(self) -> str:
        named = _named(self.config.cluster.experiment)
        found = self.client.list_experiments(namespace=self._namespace, filter=named, page_size=_PAGE).experiments
        return found[0].experiment_id if found else ""

    def _pipeline(self, path: Path) -> tuple[tuple[str, str], str]:
        """Ids of a pipeline and of the version that this file is, uploaded unless they are there."""
        name = uploaded_name(path.stem)
        version_name = f"{name}-{digest_bytes(path.read_bytes())[:12]}"
        found = self.client.list_pipelines(namespace=self._namespace, filter=_named(name), page_size=_PAGE).pipelines
        pipeline_id = found[0].pipeline_id if found else ""
        if pipeline_id:
            named = _named(version_name)
            versions = self.client.list_pipeline_versions(pipeline_id, filter=named, page_size=_PAGE).pipeline_versions
            if versions:
                version_id = versions[0].pipeline_version_id
                return (pipeline_id, version_id), f"pipeline {name}: version {version_name} is there"
        said = f"pipeline {name}: version {version_name} uploaded"
        if self.dry_run:
            return (pipeline_id, ""), said
        if not pipeline_id:
            pipeline_id = self.client.upload_pipeline(
                str(path), name, description=f"See {self.store_uri}", namespace=self._namespace
            ).pipeline_id
        uploaded = self.client.upload_pipeline_version(str(path), version_name, pipeline_id=pipeline_id)
        return (pipeline_id, uploaded.pipeline_version_id), said

    def _schedule(
        self, experiment_id: str, name: str, version: tuple[str, str], parameters: dict[str, str], cron: str
    ) -> str:
        """A recurring run, made anew if anything in it is to be otherwise."""
        cluster = self.config.cluster
        found = []
        if experiment_id:
            listed = self.client.list_recurring_runs(experiment_id=experiment_id, page_size=_PAGE).recurring_runs or []
            found = [run for run in listed if run.display_name == name]
        wanted = (*version, parameters, cron, cluster.service_account or "")
        if len(found) == 1 and version[1] and _described(found[0]) == wanted:
            return f"schedule {name}: is there ({cron})"
        said = f"schedule {name}: {'replaced' if found else 'made'} ({cron})"
        if self.dry_run:
            return said
        for run in found:
            self.client.delete_recurring_run(run.recurring_run_id)
        self.client.create_recurring_run(
            experiment_id,
            name,
            description=f"Looks for a day that is due, in {self.store_uri}",
            cron_expression=cron,
            max_concurrency=1,
            # The pipeline itself takes the oldest day that no run has finished.
            no_catchup=True,
            params=parameters,
            pipeline_id=version[0],
            version_id=version[1],
            service_account=cluster.service_account,
        )
        return said

    def _first_batch(self, experiment_id: str, version: tuple[str, str], parameters: dict[str, str]) -> str:
        """The one run of the batch, started unless it is finished or going on."""
        if Store(self.store_uri).finished_days(BATCH):
            return f"run {FIRST_BATCH}: is finished"
        runs: list[Any] = []
        if experiment_id:
            listed = self.client.list_runs(experiment_id=experiment_id, page_size=_PAGE, sort_by="created_at desc")
            runs = listed.runs or []
        if any(run.display_name == FIRST_BATCH and run.state in _ACTIVE for run in runs):
            return f"run {FIRST_BATCH}: goes on"
        if not self.dry_run:
            self.client.run_pipeline(
                experiment_id,
                FIRST_BATCH,
                params=parameters,
                pipeline_id=version[0],
                version_id=version[1],
                service_account=self.config.cluster.service_account,
            )
        return f"run {FIRST_BATCH}: started"


@contextmanager
def _naming_refusals() -> Iterator[None]:
    """One line for what the client says in twenty.

    Raises:
        InputError: If the API server does not answer, or refuses something.
    """
    try:
        yield
    except (ApiException, HTTPError, RuntimeError) as error:
        reason = " ".join(str(getattr(error, "body", "") or error).split())[:500]
        raise InputError(f"Kubeflow Pipelines refused: {reason}; see cluster.namespace and --host") from error


def _named(name: str) -> str:
    """The API's filter for a display name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _described(run: Any) -> tuple[str, str, dict[str, str], str, str]:
    """What makes one recurring run another one."""
    version, trigger = run.pipeline_version_reference, run.trigger
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else ""
    parameters = dict(run.runtime_config.parameters or {}) if run.runtime_config else {}
    return (version.pipeline_id, version.pipeline_version_id, parameters, cron, run.service_account or "")
