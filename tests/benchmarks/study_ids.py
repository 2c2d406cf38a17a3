"""Simulated impressions whose ids follow power laws: most users and items are rare, so a second epoch can overfit.

Users, items, campaigns and advertisers have latent vectors; an item's comes from its campaign, a campaign's from its
advertiser. A label depends on the product of user and item vector, on an effect of each, on context and on dense
features. Rates are those of Qiu et al. 2025, table 2, relative to clicks, the four rare ones times five.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from components.common.config import Config
from components.features.feature_list import (
    CategoricalFeature,
    CountFeatures,
    EngagementFeatures,
    FeatureConfig,
    SequenceFeature,
)
from components.features.objectives import OBJECTIVES
from components.ranker.dataset import ExampleSet

CLICK_RATE = 0.15
# Positives of each objective, as a share of the clicks.
RATES_PER_CLICK = {
    "click": 1.0,
    "good_click": 0.15,
    "add_to_cart_given_click": 0.035,
    "checkout_given_click": 0.01,
    "add_to_cart_given_view": 0.15,
    "checkout_given_view": 0.05,
}
_CALIBRATION_ROWS = 100_000
_USER_CLUSTERS = 200
_CHOICE_EXPONENT = 0.9
# Deviations of the parts of a logit.
_MATCH, _USER_EFFECT, _ITEM_EFFECT, _CONTEXT, _DENSE = 1.5, 0.5, 0.5, 0.5, 0.4


class Simulation(Config):
    """Sizes of a simulated world and of the examples drawn from it."""

    num_users: int = Field(300_000, ge=2)
    num_items: int = Field(200_000, ge=2)
    num_campaigns: int = Field(50_000, ge=2)
    num_advertisers: int = Field(5_000, ge=2)
    num_contexts: int = Field(12, ge=1, description="small categorical features")
    num_dense: int = Field(8, ge=1)
    latent_dim: int = Field(4, ge=1)
    user_exponent: float = Field(0.8, gt=0, lt=1, description="of Zipf's law: lower makes users rarer")
    item_exponent: float = Field(1.0, gt=0)
    own_share: float = Field(0.7, gt=0, lt=1, description="what a latent vector does not share with its parent's")
    train_rows: int = Field(400_000, ge=1)
    test_rows: int = Field(200_000, ge=1)
    num_days: int = Field(10, ge=1, description="continual days after the batch")
    day_rows: int = Field(40_000, ge=1)

    @property
    def context_sizes(self) -> np.ndarray:
        """Values of each context feature."""
        return np.geomspace(3, 60, self.num_contexts).astype(np.int64)

    def features(self) -> FeatureConfig:
        """The feature list; no row has a sequence."""
        sizes = {
            "user_id": self.num_users,
            "item_id": self.num_items,
            "campaign_id": self.num_campaigns,
            "advertiser_id": self.num_advertisers,
            **{f"context_{number}": int(size) for number, size in enumerate(self.context_sizes)},
        }
        return FeatureConfig(
            categorical=tuple(CategoricalFeature(name=name, num_rows=size) for name, size in sizes.items()),
            sequence=SequenceFeature(length=1),
            counts=CountFeatures(entities=()),
            engagement=EngagementFeatures(entities=()),
            numbers=tuple(f"number_{number}" for number in range(self.num_dense)),
        )


class World:
    """One draw of everything that the labels depend on; the same for the same seed."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        """Draw latent vectors and effects, and set each objective's rate on a sample."""
        self.simulation, self.features, self._seed = simulation, simulation.features(), seed
        generator = self._generator(0)
        normal = generator.standard_normal
        dim = simulation.latent_dim
        self._advertiser_of = zipf(generator, simulation.num_campaigns, simulation.num_advertisers, _CHOICE_EXPONENT)
        self._campaign_of = zipf(generator, simulation.num_items, simulation.num_campaigns, _CHOICE_EXPONENT)
        cluster_of = generator.integers(0, _USER_CLUSTERS, simulation.num_users)
        advertisers, clusters = normal((simulation.num_advertisers, dim)), normal((_USER_CLUSTERS, dim))
        campaigns = self._beside(advertisers[self._advertiser_of], generator)
        self._items = self._beside(campaigns[self._campaign_of], generator)
        self._users = self._beside(clusters[cluster_of], generator)
        self._user_effects, self._item_effects = normal(simulation.num_users), normal(simulation.num_items)
        self._context_effects = [normal(size) for size in simulation.context_sizes]
        self._dense_weights = normal(simulation.num_dense) / np.sqrt(simulation.num_dense)
        # Every objective has its own directions of user and item; those of a click count alike.
        self._directions = normal((dim, len(OBJECTIVES)))
        self._directions[:, 0] = 1.0
        self._intercepts = np.zeros(len(OBJECTIVES))
        self._calibrate()

    def draw(self, num_rows: int, stream: int) -> ExampleSet:
        """Draw examples; the same for the same stream, which is at least 1."""
        generator = self._generator(stream + 1)
        ids, dense = self._impressions(num_rows, generator)
        logits = self._logits(ids, dense) + self._intercepts
        positive = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
        eligible = _eligible(positive[:, 0])
        # A good click is a click, though all rows take part in its loss.
        possible = eligible.copy()
        possible[:, 1] = positive[:, 0]
        return ExampleSet(
            features=self.features,
            categorical=torch.from_numpy(ids),
            vectors=torch.zeros(num_rows, 0),
            dense=torch.from_numpy(dense),
            sequence=torch.zeros(num_rows, 1, len(self.features.sequence_names), dtype=torch.int64),
            lengths=torch.zeros(num_rows, dtype=torch.int64),
            labels=torch.from_numpy((positive & possible).astype(np.float32)),
            masks=torch.from_numpy(eligible.astype(np.float32)),
            users=ids[:, 0].copy(),
        )

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, stream])

    def _beside(self, parents: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        own = self.simulation.own_share
        return np.sqrt(1 - own**2) * parents + own * generator.standard_normal(parents.shape)

    def _impressions(self, num_rows: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        simulation = self.simulation
        users = zipf(generator, num_rows, simulation.num_users, simulation.user_exponent)
        items = zipf(generator, num_rows, simulation.num_items, simulation.item_exponent)
        campaigns = self._campaign_of[items]
        contexts = generator.integers(0, simulation.context_sizes, (num_rows, simulation.num_contexts))
        identifiers = [users, items, campaigns, self._advertiser_of[campaigns]]
        dense = generator.standard_normal((num_rows, simulation.num_dense), dtype=np.float32)
        return np.column_stack([*identifiers, contexts]), dense

    def _logits(self, ids: np.ndarray, dense: np.ndarray) -> np.ndarray:
        users, items = ids[:, 0], ids[:, 1]
        context = sum(effects[ids[:, 4 + number]] for number, effects in enumerate(self._context_effects))
        plain = _USER_EFFECT * self._user_effects[users] + _ITEM_EFFECT * self._item_effects[items]
        plain += _CONTEXT * context / np.sqrt(self.simulation.num_contexts) + _DENSE * (dense @ self._dense_weights)
        match = (self._users[users] * self._items[items]) @ self._directions / np.sqrt(self.simulation.latent_dim)
        return plain[:, None] + _MATCH * match

    def _calibrate(self) -> None:
        generator = self._generator(1)
        logits = self._logits(*self._impressions(_CALIBRATION_ROWS, generator))
        self._intercepts[0] = _intercept(logits[:, 0], CLICK_RATE)
        clicked = generator.random(len(logits)) < 1 / (1 + np.exp(-logits[:, 0] - self._intercepts[0]))
        possible = _eligible(clicked)
        possible[:, 1] = clicked
        for number, objective in enumerate(OBJECTIVES[1:], start=1):
            rows = possible[:, number]
            rate = RATES_PER_CLICK[objective.name] * CLICK_RATE / rows.mean()
            self._intercepts[number] = _intercept(logits[rows, number], rate)


def zipf(generator: np.random.Generator, count: int, num_ids: int, exponent: float) -> np.ndarray:
    """Ids below `num_ids`, int64, shape (count,), the k-th most frequent about as often as k^-exponent."""
    uniform = generator.random(count)
    if exponent == 1.0:
        ranks = np.exp(uniform * np.log(num_ids))
    else:
        power = 1 - exponent
        ranks = ((num_ids**power - 1) * uniform + 1) ** (1 / power)
    return (ranks.astype(np.int64) - 1).clip(0, num_ids - 1)


def _eligible(clicked: np.ndarray) -> np.ndarray:
    by_rows = {"all": np.ones(len(clicked), dtype=bool), "clicked": clicked, "not_clicked": ~clicked}
    return np.column_stack([by_rows[objective.rows] for objective in OBJECTIVES])


def _intercept(logits: np.ndarray, rate: float) -> float:
    """What to add to logits so that their mean probability is `rate`, by bisection."""
    low, high = -20.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-logits - middle))).mean() < rate:
            low = middle
        else:
            high = middle
    return low


def rare_rows_percent(examples: ExampleSet) -> dict[str, float]:
    """Share of the examples whose user, and whose item, is in at most five of them."""
    columns = {name: number for number, name in enumerate(examples.features.categorical_names)}
    shares = {}
    for name in ("user_id", "item_id"):
        ids = examples.categorical[:, columns[name]]
        shares[name] = 100 * float((torch.bincount(ids)[ids] <= 5).double().mean())
    return shares
