"""The configuration of a deployment: one YAML file with a section per step."""

from __future__ import annotations

import posixpath
from collections import Counter
from importlib.resources import files
from typing import Any, ClassVar

import pyarrow as pa
from google.protobuf import text_format
from pydantic import Field, model_validator

from components.common import storage
from components.common.arms import check_arm_name
from components.common.config import GrownConfig, ResolvedConfig, read_yaml
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.retention import RetentionConfig
from components.evaluate.config import EvaluationConfig
from components.export.config import ExportConfig
from components.features.events import ACTIONS, IMPRESSIONS, DatasetConfig
from components.features.examples import example_schema
from components.features.feature_checks import check_features
from components.features.feature_list import FeatureConfig
from components.features.objectives import DEFAULT_SERVED, ServedObjectives
from components.gate.config import GateConfig
from components.join.config import JoinConfig
from components.online.config import OnlineConfig
from components.pretrain.config import PretrainConfig
from components.ranker.presets import MODELS, with_preset
from components.schedule.config import ScheduleConfig
from components.serve.config import ServingConfig
from components.sources.config import CompleteJourneySource, FilesSource, SimulatorSource, SqlSource, VectorSource
from components.train.config import TrainConfig
from data_validation.config import ValidationConfig
from data_validation.examples.schema import read_schema
from pipelines.cluster import ClusterConfig


class RunConfig(GrownConfig):
    """Everything that a pipeline run is given."""

    later: ClassVar[tuple[str, ...]] = ("online",)

    dataset: DatasetConfig
    source: CompleteJourneySource | SimulatorSource | FilesSource | SqlSource = Field(discriminator="kind")
    features: FeatureConfig
    vectors: dict[str, VectorSource] = Field({}, description="where pretrained vectors are delivered, by feature")
    served: ServedObjectives = DEFAULT_SERVED
    schedule: ScheduleConfig
    production: str = Field(
        description="the arm that is to be served first, the first of them if not given; later, the registry says"
    )
    arms: dict[str, TrainConfig] = Field(min_length=1, description="recipes under comparison, each complete, by name")
    validation: ValidationConfig = ValidationConfig()
    join: JoinConfig = JoinConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    export: ExportConfig = ExportConfig()
    retention: RetentionConfig = RetentionConfig()
    pretrain: PretrainConfig | None = Field(None, description="tables of ids on all engagement, to start arms from")
    serving: ServingConfig | None = Field(None, description="servers that daily runs roll out to (docs/rollouts.md)")
    online: OnlineConfig | None = Field(None, description="features that servers complete requests with, of each run")
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="before")
    @classmethod
    def _name_production(cls, values: Any) -> Any:
        named = isinstance(values, dict) and "production" in values
        arms = values.get("arms") if isinstance(values, dict) else None
        return {**values, "production": next(iter(arms))} if arms and not named else values

    @model_validator(mode="after")
    def _check_sections(self) -> RunConfig:
        check_features(self.features, self.dataset)
        undelivered = sorted({*self.features.vector_names} ^ {*self.vectors})
        if undelivered:
            raise ValueError(
                f"vectors.{undelivered[0]}: the features of features.vectors, {list(self.features.vector_names)}, and "
                f"what is delivered, {list(self.vectors)}, must have the same names"
            )
        columns = Counter(example_schema(self.features, pa.int64()).names)
        twice = [name for name, count in columns.items() if count > 1]
        if twice:
            raise ValueError(f"features: {twice[0]!r} is a column that examples have anyway; rename it")
        self._check_arms()
        for wanted in self.evaluation.slices:
            if wanted.column not in self.features.plain_names:
                raise ValueError(
                    f"evaluation.slices: {wanted.column!r} is not a categorical feature of its own column; one of "
                    f"{[*self.features.plain_names]}"
                )
        self._check_pretrained()
        kept, needed = self.retention.summary_days, self.features.history_days + self.dataset.maturity_days + 1
        if kept is not None and kept < needed:
            raise ValueError(
                f"retention.summary_days = {kept}: features and windows reach over {needed} days; keep that many"
            )
        if isinstance(self.source, FilesSource | SqlSource):
            for table, source in ((IMPRESSIONS, self.source.impressions), (ACTIONS, self.source.actions)):
                unknown = sorted(set(source.columns) - {column.name for column in self.dataset.columns(table)})
                if unknown:
                    raise ValueError(f"source.{table}.columns: {unknown} are not columns of the log contract")
        if self.schedule.first_day < self.dataset.first_day:
            raise ValueError(
                f"schedule.first_day = {self.schedule.first_day} is before dataset.first_day = {self.dataset.first_day}"
            )
        return self

    def _check_arms(self) -> None:
        for name in self.arms:
            check_arm_name(name)
        if self.production not in self.arms:
            raise ValueError(f"production: {self.production!r} is not among the arms, {[*self.arms]}; name one of them")
        starts: dict[str, str] = {}
        for name, recipe in self.arms.items():
            for number in range(recipe.replicas):
                digest = digest_json(recipe.start(number).recipe())
                if digest in starts:
                    raise ValueError(
                        f"arms: {name} and {starts[digest]} are the same recipe with the same seed; change one of "
                        "them, or give one another seed, for a test of equals"
                    )
                starts[digest] = name

    def _check_pretrained(self) -> None:
        pretrain = self.pretrain
        if pretrain is not None:
            pretrain.edges.check_against(self.dataset)
            pretrain.check_against(self.features)
            kept, window = self.retention.edge_days, pretrain.edges.num_days
            if kept is not None and (window is None or kept < window):
                raise ValueError(
                    f"retention.edge_days = {kept} is less than the window of pretrain.edges.num_days = "
                    f"{window or 'all days'}; change one of the two"
                )
        for arm, recipe in self.arms.items():
            if recipe.pretrained is None:
                continue
            if pretrain is None:
                raise ValueError(f"arms.{arm}.pretrained: there is no section pretrain; add it (docs/pretraining.md)")
            if recipe.pretrained.mode == "single_stage":
                continue
            unknown = sorted(set(recipe.pretrained.tables) - set(pretrain.trained_tables))
            if unknown:
                raise ValueError(
                    f"arms.{arm}.pretrained.tables: {unknown[0]!r} is not among what is pretrained, "
                    f"{list(pretrain.trained_tables)}; add a relation of it to pretrain.edges, and pretrain.graph"
                )
            if recipe.model.embedding_dim != pretrain.embedding_dim:
                raise ValueError(
                    f"pretrain.embedding_dim = {pretrain.embedding_dim}, arms.{arm}.model.embedding_dim = "
                    f"{recipe.model.embedding_dim}; an arm starts from rows of its own length"
                )

    def write(self, store: Store) -> str:
        """Write the resolved configuration into a store, for the steps to read; returns its address."""
        return ResolvedConfig.write(store.configs(), self.model_dump(mode="json")).uri


def load_config(name_or_uri: str, with_schema: bool = True) -> RunConfig:
    """Load a configuration: a file, or the name of one that is shipped, such as `complete_journey`.

    In the file a section `train` holds what all arms share, `arms.NAME` what differs in one;
    `validation.reviewed_schema` names a file beside it. With `extends` it holds what differs from another one, shipped
    or a file.

    Raises:
        InputError: Naming the file and every offending field.
    """
    uri = _address(name_or_uri)
    values, lines = read_yaml(uri)
    if "extends" in values:
        values = _merge(_base(str(values.pop("extends")), uri), values)
    shared, arms = values.pop("train", {}), values.get("arms", {})
    if not isinstance(shared, dict) or not isinstance(arms, dict):
        raise InputError(f"{uri}: train and arms must be mappings")
    shared, recipes = _resolved(shared), {name: _resolved(recipe or {}) for name, recipe in arms.items()}
    values["arms"] = {name: _merge(shared, recipe) for name, recipe in recipes.items()}
    _hand_on(values, uri)
    _read_schema(values, uri, with_schema)
    return RunConfig.parse(values, uri, lines)


def _address(name_or_uri: str) -> str:
    shipped = files("pipelines.configs") / f"{name_or_uri}.yaml"
    uri = name_or_uri if "/" in name_or_uri or name_or_uri.endswith((".yaml", ".yml")) else str(shipped)
    if not storage.exists(uri):
        names = sorted(entry.name for entry in files("pipelines.configs").iterdir())
        known = [name.removesuffix(".yaml") for name in names if name.endswith(".yaml")]
        raise InputError(f"{name_or_uri}: no such configuration file, nor one of the shipped {known}")
    return uri


def _base(name: str, uri: str) -> dict[str, Any]:
    """The values of the configuration that the file at `uri` extends."""
    beside = storage.join_uri(posixpath.dirname(uri) or ".", name)
    is_beside = name.endswith((".yaml", ".yml")) and "://" not in name and not name.startswith("/")
    values, _ = read_yaml(_address(beside if is_beside else name))
    if "extends" in values:
        raise InputError(f"{uri}: extends: {name} extends another configuration itself; name that one")
    return values


def _hand_on(values: dict[str, Any], uri: str) -> None:
    """Give sections what is said once for all of them: the served objectives, and the time zone."""
    dataset = values.get("dataset")
    zone = dataset.get("timezone", "UTC") if isinstance(dataset, dict) else "UTC"
    served = values.get("served", list(DEFAULT_SERVED))
    given = {**dict.fromkeys(("evaluation", "gate", "export"), ("served", served)), "features": ("timezone", zone)}
    for name, (key, value) in given.items():
        section = values.setdefault(name, {}) if key == "served" else values.get(name)
        if isinstance(section, dict):
            if section.get(key, value) != value:
                once = "the key served" if key == "served" else "dataset.timezone"
                raise InputError(f"{uri}: {name}.{key}: remove it; it is said once, by {once}")
            section[key] = value


def _read_schema(values: dict[str, Any], uri: str, with_schema: bool) -> None:
    """Put the text of the file that `validation.reviewed_schema` names, beside the configuration, in its place."""
    validation = values.get("validation")
    name = validation.get("reviewed_schema") if isinstance(validation, dict) else None
    if not isinstance(validation, dict) or not isinstance(name, str) or not name:
        return
    if not with_schema:
        del validation["reviewed_schema"]
        return
    schema_uri = (
        name if "://" in name or name.startswith("/") else storage.join_uri(posixpath.dirname(uri) or ".", name)
    )
    validation["reviewed_schema"] = text_format.MessageToString(read_schema(schema_uri))


def _resolved(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe, or what both share, with its sizes' preset filled in: an arm's preset counts before shared sizes."""
    known = isinstance(recipe.get("model"), dict) and recipe["model"].get("preset") in MODELS
    return {**recipe, "model": with_preset(recipe["model"])} if known else recipe


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
