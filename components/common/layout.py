"""Where everything lies in a store: the one folder or bucket that a deployment keeps its files in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from components.common.days import days_in
from components.common.storage import finished_names, join_uri, list_names, list_tree

# Files of a checkpoint that people look at.
LOSS_CURVE_FILE = "loss_curve.json"
TEST_CURVE_FILE = "test_curve.json"

_DAY_PREFIX = "event_date="
_THROUGH_PREFIX = "through="


@dataclass(frozen=True)
class Store:
    """Paths under a root that may be local or remote (any fsspec URI)."""

    root: str

    def configs(self) -> str:
        """The folder of resolved configurations."""
        return join_uri(self.root, "configs")

    def _day(self, *parts: str, day: date) -> str:
        return join_uri(self.root, *parts, f"{_DAY_PREFIX}{day}")

    def delivered_logs(self, log: str, day: date) -> str:
        """One day of a log as its source delivered it."""
        return self._day("logs", log, day=day)

    def logs_marker(self) -> str:
        """Manifest directory of the logs that a generating source made."""
        return join_uri(self.root, "logs", "source")

    def truth(self, day: date) -> str:
        """The simulator's true probabilities of one day."""
        return self._day("logs", "truth", day=day)

    def clean_logs(self, log: str, day: date) -> str:
        """One day of a log after validation."""
        return self._day("clean_logs", log, day=day)

    def clean_days(self) -> list[date]:
        """The days whose impressions have been validated."""
        return days_in(join_uri(self.root, "clean_logs", "impressions"), finished_names, _DAY_PREFIX)

    def log_folders(self) -> tuple[str, ...]:
        """The folders of what there is a directory of for each log day: delivered and clean logs, and summaries."""
        return tuple(join_uri(self.root, name) for name in ("logs", "clean_logs", "log_summaries"))

    def log_index(self) -> str:
        """What their manifests say, in one file."""
        return join_uri(self.root, "log_verdicts", "manifests.json")

    def quarantine(self, log: str, day: date) -> str:
        """Rejected rows of one day of a log, each with its reason."""
        return self._day("quarantine", log, day=day)

    def log_verdict(self, first: date, last: date) -> str:
        """The findings on the logs of a span of days."""
        return join_uri(self.root, "log_verdicts", f"{first}..{last}")

    def failed_expectations(self) -> str:
        """The page of the last logs that were refused."""
        return join_uri(self.root, "log_verdicts", "refused.html")

    def vectors(self, name: str, day: date) -> str:
        """One day's delivery of pretrained vectors."""
        return self._day("vectors", name, day=day)

    def vector_days(self, name: str) -> list[date]:
        """The days that vectors were delivered on."""
        return days_in(join_uri(self.root, "vectors", name), finished_names, _DAY_PREFIX)

    def examples(self, split: str, day: date) -> str:
        """One day of labelled examples."""
        return self._day("examples", split, day=day)

    def example_days(self, split: str) -> list[date]:
        """The days that have examples of a split."""
        return days_in(join_uri(self.root, "examples", split), finished_names, _DAY_PREFIX)

    def lease(self, number: int) -> str:
        """Who works on this store; the highest number counts."""
        return join_uri(self.root, "lease", f"{number:09d}.json")

    def lease_numbers(self) -> list[int]:
        """The numbers that there are, in order."""
        return sorted(int(name.removesuffix(".json")) for name in list_names(join_uri(self.root, "lease")))

    def scratch(self, name: str) -> str:
        """Intermediate files of one run of a step."""
        return join_uri(self.root, "scratch", name)

    def example_statistics(self, day: date, early: bool = False) -> str:
        """Statistics and anomalies of one day of examples; of early ones beside those of final ones."""
        return self._day("early_example_statistics" if early else "example_statistics", day=day)

    def log_summary(self, day: date) -> str:
        """What one day of the logs says for the examples of later days."""
        return self._day("log_summaries", day=day)

    def log_summary_days(self) -> list[date]:
        """The log days that have been summarised."""
        return days_in(join_uri(self.root, "log_summaries"), finished_names, _DAY_PREFIX)

    def online_features(self, settings: str, day: date) -> str:
        """What log days until one say for requests after them, by the digest of what it was made by."""
        return self._day("online_features", settings, day=day)

    def online_settings(self) -> list[str]:
        """The digests that there are."""
        return list_names(join_uri(self.root, "online_features"))

    def online_days(self, settings: str) -> list[date]:
        """The days that there are of one."""
        return days_in(join_uri(self.root, "online_features", settings), finished_names, _DAY_PREFIX)

    def edges(self, day: date) -> str:
        """What one day of the logs says of two ids."""
        return self._day("edges", day=day)

    def edge_days(self) -> list[date]:
        """The log days whose edges have been collected."""
        return days_in(join_uri(self.root, "edges"), finished_names, _DAY_PREFIX)

    def pretrained(self, through: date) -> str:
        """Tables that were pretrained on the log days until one."""
        return join_uri(self.root, "pretrained", f"{_THROUGH_PREFIX}{through}")

    def pretrained_days(self) -> list[date]:
        """The last log days of the pretrained tables that there are."""
        return days_in(join_uri(self.root, "pretrained"), finished_names, _THROUGH_PREFIX)

    def pretraining_points(self, through: date) -> str:
        """Where a killed pretraining goes on from; empty once it is finished."""
        return join_uri(self.root, "resume_points", "pretraining", f"{_THROUGH_PREFIX}{through}")

    def checkpoint(self, arm: str, through: date) -> str:
        """An arm's training state after a day."""
        return join_uri(self.root, "checkpoints", arm, f"{_THROUGH_PREFIX}{through}")

    def checkpoint_days(self, arm: str) -> list[date]:
        """The days after which the arm has a checkpoint."""
        return days_in(join_uri(self.root, "checkpoints", arm), finished_names, _THROUGH_PREFIX)

    def resume_points(self, arm: str, through: date) -> str:
        """Where a killed run of training goes on from; empty once it is finished."""
        return join_uri(self.root, "resume_points", arm, f"{_THROUGH_PREFIX}{through}")

    def tensorboard(self, arm: str, through: date) -> str:
        """TensorBoard's event files of a run of training."""
        return join_uri(self.root, "tensorboard", arm, f"{_THROUGH_PREFIX}{through}")

    def trained_models(self) -> list[str]:
        """Names of the arms, and of their other starts, that have checkpoints."""
        return list_names(join_uri(self.root, "checkpoints"))

    def arms(self) -> list[str]:
        """Names of the arms that were ever trained."""
        return list_names(join_uri(self.root, "arms"))

    def arm_recipe(self, arm: str) -> str:
        """How an arm was trained."""
        return join_uri(self.root, "arms", arm, "recipe.json")

    def arm_retirement(self, arm: str) -> str:
        """Why an arm is neither trained nor scored any more; absent while it is."""
        return join_uri(self.root, "arms", arm, "retired.json")

    def arm_costs(self, arm: str, through: date) -> str:
        """What it took to train a model until a day."""
        return join_uri(self.root, "training_costs", arm, f"{_THROUGH_PREFIX}{through}.json")

    def arm_cost_days(self, arm: str) -> list[date]:
        """The days that it is known of."""
        return days_in(join_uri(self.root, "training_costs", arm), list_names, _THROUGH_PREFIX)

    def trial(self, name: str) -> str:
        """The record of a trial."""
        return join_uri(self.root, "trials", f"{name}.json")

    def trials(self) -> list[str]:
        """Names of all trials, in order of their first days."""
        return sorted(name.removesuffix(".json") for name in list_names(join_uri(self.root, "trials")))

    def format(self) -> str:
        """Which release's rules a store keeps."""
        return join_uri(self.root, "store.json")

    def arm_failure(self, arm: str) -> str:
        """Why an arm is trained no further; absent while nothing is wrong."""
        return join_uri(self.root, "arms", arm, "failure.json")

    def ledger_rows(self) -> list[tuple[date, str]]:
        """Day and arm of the records in the ledger, in order."""
        folder = join_uri(self.root, "ledger")
        paths = (path.rpartition("/") for path in list_tree(folder) if path.endswith(".json"))
        arms: dict[str, list[str]] = {}
        for day, _, name in paths:
            arms.setdefault(day, []).append(name.removesuffix(".json"))
        days = days_in(folder, lambda uri: list(arms), _DAY_PREFIX)
        return [(day, arm) for day in sorted(days) for arm in sorted(arms[f"{_DAY_PREFIX}{day}"])]

    def ledger_days(self) -> list[date]:
        """The days that have records in the ledger."""
        return sorted({day for day, _ in self.ledger_rows()})

    def ledger_day(self, day: date) -> str:
        """The records of one day."""
        return self._day("ledger", day=day)

    def ledger_row(self, day: date, arm: str) -> str:
        """The record of one arm on one day."""
        return join_uri(self.ledger_day(day), f"{arm}.json")

    def blessing(self, pipeline: str, day: date) -> str:
        """The gate's verdict in one pipeline's run of a day."""
        return join_uri(self.root, "blessings", pipeline, f"{_DAY_PREFIX}{day}.json")

    def blessing_days(self, pipeline: str) -> list[date]:
        """The days on which a pipeline's run has a verdict."""
        return days_in(join_uri(self.root, "blessings", pipeline), list_names, _DAY_PREFIX)

    def staged_version(self, digest: str) -> str:
        """An exported version that has not been published."""
        return join_uri(self.root, "exports", "versions", digest)

    def onnx_graph(self, key: str) -> str:
        """The ONNX graph of an architecture, for every checkpoint's weights."""
        return join_uri(self.root, "exports", "graphs", key)

    def staged_versions(self) -> list[str]:
        """Digests of the checkpoints that have an exported version here."""
        return finished_names(join_uri(self.root, "exports", "versions"))

    def export(self, pipeline: str, day: date) -> str:
        """What one pipeline's run of a day exported."""
        return join_uri(self.root, "exports", "runs", pipeline, f"{_DAY_PREFIX}{day}.json")

    def version(self, digest: str) -> str:
        """A published version; a server looks nowhere else."""
        return join_uri(self.root, "registry", "versions", digest)

    def versions(self) -> list[str]:
        """Digests of the published versions."""
        return list_names(join_uri(self.root, "registry", "versions"))

    def pointer(self, channel: str) -> str:
        """The file that names a channel's version: CURRENT or EXPERIMENT."""
        return join_uri(self.root, "registry", channel)

    def deployment(self, name: str) -> str:
        """Which versions the servers of a deployment hold."""
        return join_uri(self.root, "deployments", f"{name}.json")

    def deployments(self) -> list[str]:
        """Names of the deployments that have a record."""
        return [name.removesuffix(".json") for name in list_names(join_uri(self.root, "deployments"))]

    def rollouts(self, *parts: str) -> str:
        """Records of rollouts, which components/common/rollouts.py names."""
        return join_uri(self.root, "rollouts", *parts)

    def publication(self, pipeline: str, day: date) -> str:
        """What one pipeline's run of a day published."""
        return join_uri(self.root, "registry", "publications", pipeline, f"{_DAY_PREFIX}{day}.json")

    def publication_days(self, pipeline: str) -> list[date]:
        """The days whose run published something, or withheld it."""
        return days_in(join_uri(self.root, "registry", "publications", pipeline), list_names, _DAY_PREFIX)

    def report(self, name: str) -> str:
        """A report page."""
        return join_uri(self.root, "reports", f"{name}.html")

    def page_script(self, version: str) -> str:
        """What draws the figures of the pages beside it."""
        return join_uri(self.root, "reports", f"plotly-{version}.min.js")

    def report_facts(self) -> str:
        """What pages show of days whose files have not changed since."""
        return join_uri(self.root, "reports", "facts.json")

    def newest_report(self) -> str:
        """The page of the latest run."""
        return join_uri(self.root, "report.html")

    def finished_run(self, pipeline: str, day: date) -> str:
        """The marker that a pipeline's run for a day is finished."""
        return join_uri(self.root, "runs", pipeline, f"{_DAY_PREFIX}{day}.json")

    def finished_days(self, pipeline: str) -> list[date]:
        """The days whose run is finished."""
        return days_in(join_uri(self.root, "runs", pipeline), list_names, _DAY_PREFIX)
