"""On simulated logs the model comes near what the simulator itself knows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.common import parquet_files, storage
from components.common.layout import Store
from components.features.examples import read_examples
from components.features.log_manifests import LOG_FILE
from components.features.objectives import DEFAULT_SERVED, OBJECTIVES
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.make_logs.run import make_logs
from components.ranker.auc import weighted_auc
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.train.one_model import train_batch
from components.train.training_state import load_state
from data_validation.logs.validate import validate_logs
from pipelines.config import load_config
from tests.conftest import small_values, write_config

NUM_DAYS, NUM_UNSEEN_DAYS = 10, 3


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Per objective: labels, the model's predictions and the true probabilities on unseen days."""
    root = tmp_path_factory.mktemp("truth")
    values = small_values()
    values["source"] |= {
        "last_day": "2026-01-25",
        "impressions_per_day": 20_000,
        "num_users": 3000,
        "num_items": 400,
        "num_campaigns": 300,
        "user_zipf": 0.6,
        "click_rate": 0.3,
        "checkout_given_click": 0.25,
        "checkout_given_view": 0.12,
        "identifier_signal": 0.35,
    }
    values["schedule"] |= {"num_batch_days": NUM_DAYS}
    values["train"] |= {"epochs": 2}
    config = load_config(str(write_config(root / "config.yaml", values)))
    store = Store(str(root / "store"))
    days = [config.schedule.first_day + timedelta(days=i) for i in range(NUM_DAYS + NUM_UNSEEN_DAYS)]
    as_of = config.dataset.mature_on(days[-1]) + timedelta(days=1)
    read = config.dataset.days_read(days[0], days[-1], config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, as_of)
    job = JoinJob(config.dataset, config.features, config.join, days[0], days[-1], as_of, days[NUM_DAYS])
    join_days(store.root, job)
    train_batch(store.root, "baseline", config.features, config.arms["baseline"], days[:NUM_DAYS])
    state, _ = load_state(store, "baseline", days[NUM_DAYS - 1])
    table = pa.concat_tables([read_examples(store, "evaluation", day)[0] for day in days[NUM_DAYS:]])
    truth = pa.concat_tables(
        [parquet_files.read_parquet(storage.join_uri(store.truth(day), LOG_FILE)) for day in days[NUM_DAYS:]]
    )
    truth = truth.take(pc.index_in(table["impression_id"], value_set=truth["impression_id"].combine_chunks()))
    examples = tensors_of(table, state.features, True, state.indexes)
    predictions = predict(state.model, state.lineage.negative_keep_rate, examples, 4096)
    found = {}
    for number, objective in enumerate(OBJECTIVES):
        rows = examples.masks[:, number].numpy() > 0
        labels = examples.labels[:, number].numpy()
        found[objective.name] = (labels[rows], predictions[rows, number], truth[objective.name].to_numpy()[rows])
    return found


def share_of_the_way(labels, predictions, truth):
    """(AUC - 0.5) of the model over that of the true probabilities."""
    ones = np.ones((len(labels), 1))
    return (weighted_auc(labels, predictions, ones)[0] - 0.5) / (weighted_auc(labels, truth, ones)[0] - 0.5)


@pytest.mark.parametrize("objective", ["click", *DEFAULT_SERVED])
def test_model_goes_nine_tenths_of_the_way_to_the_truth(scored, objective):
    assert share_of_the_way(*scored[objective]) >= 0.9


def test_all_objectives_are_learnt(scored):
    assert np.mean([share_of_the_way(*values) for values in scored.values()]) >= 0.9


@pytest.mark.parametrize("objective", [o.name for o in OBJECTIVES])
def test_predictions_are_calibrated_to_the_truth(scored, objective):
    """Down-sampling of negatives is corrected: without it these would be off by a factor of almost two."""
    _, predictions, truth = scored[objective]
    assert predictions.mean() == pytest.approx(truth.mean(), rel=0.12)
