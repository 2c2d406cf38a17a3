"""Down-sampling is exact: corrected once, each head's predictions match the simulator's true probabilities."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from components.features.events import DatasetConfig
from components.features.objectives import OBJECTIVES
from components.join.assemble import JoinJob, join_shard
from components.join.config import JoinConfig
from components.make_logs.simulator import simulate
from components.ranker.dataset import participation
from components.ranker.ranker import LogitCorrection
from components.sources.config import SimulatorSource
from tests.conftest import small_values

NUM_DAYS = 20


@pytest.fixture(scope="module")
def simulated():
    """A million impressions in the middle of the logs, and true logits by objective."""
    values = small_values()
    dataset = DatasetConfig.parse(values["dataset"], "dataset")
    source = SimulatorSource.model_validate(
        {
            "kind": "simulator",
            "last_day": dataset.first_day + timedelta(days=NUM_DAYS + dataset.maturity_days),
            "impressions_per_day": 60_000,
            "num_users": 200_000,
            "num_campaigns": 2000,
            "user_zipf": 0.2,
            "click_rate": 0.3,
            "good_click_given_click": 0.5,
            "add_to_cart_given_click": 0.3,
            "checkout_given_click": 0.3,
            "add_to_cart_given_view": 0.2,
            "checkout_given_view": 0.2,
        }
    )
    return dataset, *simulate(source, dataset)


@pytest.fixture(scope="module", params=[1.0, 0.3, 0.05])
def sampled(request, simulated):
    """The examples at one keep rate, and their true probabilities."""
    dataset, impressions, actions, truth = simulated
    config = JoinConfig(negative_keep_rate=request.param)
    last = dataset.first_day + timedelta(days=NUM_DAYS)
    as_of = dataset.mature_on(last) + timedelta(days=1)
    job = JoinJob(dataset, None, config, dataset.first_day, last, as_of, as_of)
    examples = join_shard(impressions, actions, None, job).examples
    assert truth["impression_id"].to_pylist()[:10] == list(range(10))
    return request.param, examples, truth, len(impressions)


@pytest.mark.parametrize("number", range(len(OBJECTIVES)), ids=[objective.name for objective in OBJECTIVES])
def test_every_head_is_calibrated_to_the_truth(sampled, number):
    """A logistic regression on the true logit is trained on the sampled rows, without weights, as the model is."""
    rate, examples, truth, _ = sampled
    objective = OBJECTIVES[number]
    labels, rows = participation(objective, examples, unsampled=False)
    probability = truth[objective.name].to_numpy()
    logit = np.log(probability / (1 - probability))[:, None]
    known = examples["impression_id"].to_numpy()
    model = LogisticRegression(C=1e6).fit(logit[known[rows]], labels[rows])
    logits = np.zeros((len(probability), len(OBJECTIVES)), dtype=np.float32)
    logits[:, number] = model.decision_function(logit)
    predicted = LogitCorrection(rate)(torch.from_numpy(logits)).numpy()[:, number]
    assert labels[rows].sum() > 20_000
    assert predicted.mean() == pytest.approx(probability.mean(), rel=0.02)
    # Also where the probability is high, and where it is low.
    for half in (probability > np.median(probability), probability <= np.median(probability)):
        assert predicted[half].mean() == pytest.approx(probability[half].mean(), rel=0.03)


def test_fewer_rows_are_kept(sampled):
    rate, examples, _, total = sampled
    assert isinstance(examples, pa.Table)
    assert rate == 1.0 or len(examples) < 0.8 * total
