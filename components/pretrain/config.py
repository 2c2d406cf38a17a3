"""What is pretrained on which edges, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from components.common.config import Config
from components.features.edges import EdgesConfig, Relation
from components.features.events import USER
from components.features.feature_list import FeatureConfig
from components.tables.config import OptimizerConfig, ShardingConfig


class ContrastiveConfig(Config):
    """Users and items by a contrastive loss (Hsu et al. 2024, equation 1)."""

    loss: Literal["contrastive", "bce"] = Field("contrastive", description="bce is the comparison of the paper")
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(4096, ge=2)
    num_negatives: int = Field(512, ge=0, description="uniform random items, shared by a batch, beside the batch's own")
    in_batch: bool = Field(True, description="the items of the batch's other pairs are negatives too")
    log_q: bool = Field(False, description="correct in-batch negatives by how often they are drawn, the positive not")
    temperature: float = Field(0.1, gt=0, description="at the start; learned")
    temperature_range: tuple[float, float] = Field((0.02, 1.0), description="that it is clamped to")

    @model_validator(mode="after")
    def _check_negatives(self) -> ContrastiveConfig:
        low, high = self.temperature_range
        if not 0 < low <= self.temperature <= high:
            raise ValueError(f"temperature = {self.temperature} is outside of temperature_range = [{low}, {high}]")
        if self.num_negatives == 0 and (self.loss == "bce" or not self.in_batch):
            raise ValueError("num_negatives = 0 leaves no negatives; set it to 1 at least")
        return self


class GraphConfig(Config):
    """Link prediction over the same tables, on the edges of all relations (Su et al. 2025)."""

    model: Literal["transe", "transr", "distmult", "complex"] = "transr"
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(4096, ge=1)
    num_negatives: int = Field(256, ge=1, description="for each end, shared by a batch")
    negatives_by_degree: float = Field(0.5, ge=0, le=1, description="share of them drawn by degree; the rest uniformly")
    margin: float = Field(6.0, ge=0, description="of distances: gamma of Sun et al. 2019, equation 5")
    adversarial_temperature: float = Field(
        1.0, ge=0, description="of self-adversarial weights; 0 weighs negatives equally"
    )


class HitsConfig(Config):
    """How a pretraining run is judged, on the window's last day."""

    num_candidates: int = Field(100, ge=3, description="other items that a held-out one is ranked among")
    max_pairs: int = Field(20_000, ge=1, description="held-out pairs that are ranked")
    max_edges: int = Field(
        500, ge=0, description="new held-out edges of each relation that the graph stage ranks among all entities"
    )


class PretrainConfig(Config):
    """The section `pretrain`."""

    embedding_dim: int = Field(ge=2, description="of the tables; that of the arms that start from them")
    edges: EdgesConfig = EdgesConfig()
    admit_after: int = Field(2, ge=1, description="an id on fewer edges keeps its row as it was drawn")
    contrastive: ContrastiveConfig | None = ContrastiveConfig()
    graph: GraphConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, table_multiplier=10.0, tables="lazy_adam")
    embedding_init: float = Field(0.1, gt=0, description="standard deviation that rows are drawn with")
    pool_edges: int = Field(1_000_000, ge=1, description="edges held in memory at a time; the shuffle mixes as many")
    hits: HitsConfig = HitsConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    num_threads: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sharding: ShardingConfig = ShardingConfig()
    resume_steps: int = Field(2000, ge=1, description="steps between points that a killed run goes on from")

    @model_validator(mode="after")
    def _check_stages(self) -> PretrainConfig:
        if self.contrastive is None and self.graph is None:
            raise ValueError("neither contrastive nor graph: nothing would be trained; take the section pretrain out")
        if self.contrastive is not None and not any(relation.is_engagement for relation in self.relations):
            raise ValueError("contrastive: no relation leads from user_id to item_id; add one with an action_type")
        if self.optimizer.tables == "adam":
            raise ValueError("optimizer.tables: adam moves all rows at every step; set lazy_adam")
        if self.graph is not None and self.graph.model == "complex" and self.embedding_dim % 2:
            raise ValueError(f"embedding_dim = {self.embedding_dim}: complex needs an even one")
        return self

    @property
    def relations(self) -> tuple[Relation, ...]:
        """Those of the edges."""
        return self.edges.relations

    @property
    def trained_tables(self) -> tuple[str, ...]:
        """The tables that some stage trains: the contrastive one those of users and items."""
        return self.edges.entities if self.graph is not None else (USER, "item_id")

    def check_against(self, features: FeatureConfig) -> None:
        """Check that everything that edges join has a table whose vectors can be compared.

        Raises:
            ValueError: Naming the relation.
        """
        tables = {feature.name: feature for feature in features.categorical}
        for relation in self.relations:
            for end in (relation.source, relation.target):
                where = f"pretrain.edges.relations: {relation.name}: {end!r}"
                if end not in tables:
                    raise ValueError(f"{where} has no table; add it to features.categorical")
                if tables[end].exact is not None:
                    raise ValueError(
                        f"{where} has exact ids, which are not pretrained; give it num_rows or binary_code"
                    )
                code = tables[end].binary_code
                if code is not None and code.combine == "concatenate":
                    raise ValueError(f"{where}: blocks of its binary code are concatenated; set combine: sum")

    def recipe(self) -> dict[str, Any]:
        """What decides the tables, as plain values."""
        how: dict[str, Any] = dict.fromkeys(("num_threads", "device", "sharding", "resume_steps", "hits"), True)
        return self.model_dump(mode="json", exclude={**how, "edges": {"beam_options"}})
