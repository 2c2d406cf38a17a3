"""The yardstick against scikit-learn on the same examples, read row by row."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from components.evaluate.logistic_regression import Yardstick
from components.features.examples import read_examples
from components.features.objectives import OBJECTIVE_NAMES
from components.features.vectors import KnownVectors
from components.ranker.checkpoint import TrainedRanker
from components.ranker.dataset import concatenate, tensors_of
from components.ranker.feature_processing import DenseNormalizer, Moments

OBJECTIVE = "checkout_given_view"
NUMBER = OBJECTIVE_NAMES.index(OBJECTIVE)


@pytest.fixture(scope="module")
def examples(trained):
    """Those of each day, the last one to be predicted, with features of all kinds."""
    store, features, days = trained.store, trained.config.features, [*trained.batch_days, trained.scored_day]
    indexes = TrainedRanker.load(store, "baseline", trained.batch_days[-1]).indexes
    known = KnownVectors.before(store, features, days[0], days[-1])
    tables = [read_examples(store, "training", day)[0] for day in days[:-1]]
    tables.append(read_examples(store, "evaluation", days[-1])[0])
    return [tensors_of(table, features, table is tables[-1], indexes, known) for table in tables]


def _read_plainly(examples, normalize, standardise):
    features = examples.features
    scaled = torch.cat([normalize(examples.dense_features), standardise(examples.vectors)], dim=1)
    pooled = {feature.name: examples.positions(feature.name) for feature in features.lists}
    for row in range(len(examples)):
        read = {f"number {place}": float(value) for place, value in enumerate(scaled[row])}
        for place, feature in enumerate(features.categorical):
            read[f"{feature.name} {examples.categorical[row, place]}"] = 1.0
        for name, (ids, weights) in pooled.items():
            for identifier, weight in zip(ids[row], weights[row], strict=True):
                read[f"{name} {identifier}"] = read.get(f"{name} {identifier}", 0.0) + float(weight)
        length = int(examples.lengths[row])
        for place, name in enumerate(features.sequence_names):
            for identifier in examples.sequence[row, :length, place].tolist():
                read[f"earlier {name} {identifier}"] = read.get(f"earlier {name} {identifier}", 0.0) + 1 / length
        yield read


def test_equals_scikit_learn_on_examples_read_row_by_row(examples):
    *days, unseen = examples
    training = concatenate(days)
    normalize = DenseNormalizer(training.features)
    normalize.fit(Moments.of(training.dense_features))
    mean, deviation = training.vectors.mean(dim=0), training.vectors.std(dim=0, correction=0).clamp(min=1e-6)
    vectorizer = DictVectorizer(dtype=np.float64)
    rows = vectorizer.fit_transform(_read_plainly(training, normalize, lambda vectors: (vectors - mean) / deviation))
    labels, mask = training.labels[:, NUMBER].numpy(), training.masks[:, NUMBER].numpy() > 0
    plain = LogisticRegression(C=0.1, tol=1e-6, max_iter=2000).fit(rows[mask], labels[mask])
    seen = vectorizer.transform(_read_plainly(unseen, normalize, lambda vectors: (vectors - mean) / deviation))
    expected = plain.predict_proba(seen)[:, 1]
    assert (training.lengths > 1).any() and expected.std() > 0.01

    found = Yardstick(days, 1.0, 0.1, (OBJECTIVE,)).predict(unseen)
    assert [*found] == [OBJECTIVE]
    difference = np.abs(found[OBJECTIVE] - expected)
    assert difference.mean() < 0.002 and difference.max() < 0.03, (difference.mean(), difference.max())


def test_parts_say_nothing_of_the_fit(examples):
    *days, unseen = examples
    by_day, at_once = (Yardstick(parts, 0.5, 0.1, (OBJECTIVE,)) for parts in (days, [concatenate(days)]))
    difference = by_day.predict(unseen)[OBJECTIVE] - at_once.predict(unseen)[OBJECTIVE]
    assert np.abs(difference).max() < 1e-3
