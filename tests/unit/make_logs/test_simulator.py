import numpy as np
import pyarrow.compute as pc
import pytest

from components.common.errors import InputError
from components.features.events import DatasetConfig
from components.features.log_events import Events
from components.features.objectives import OBJECTIVES
from components.join.attribution import Attribution, label
from components.make_logs.simulator import simulate


@pytest.fixture(scope="module")
def simulated(small_config):
    source = small_config.source.model_copy(update={"impressions_per_day": 6000, "num_users": 20_000})
    return small_config.dataset, *simulate(source, small_config.dataset)


def test_same_seed_same_logs(small_config):
    first, second = (simulate(small_config.source, small_config.dataset) for _ in range(2))
    assert all(a.equals(b) for a, b in zip(first, second, strict=True))


def test_order_of_keys_does_not_matter(small_config):
    """kfp passes mappings as protobuf structs, which keep no order."""
    values = small_config.dataset.model_dump(mode="json")
    backwards = {name: values["attribution"][name] for name in sorted(values["attribution"], reverse=True)}
    dataset = DatasetConfig.parse({**values, "attribution": backwards}, "dataset")
    pairs = zip(
        simulate(small_config.source, dataset), simulate(small_config.source, small_config.dataset), strict=True
    )
    assert all(a.equals(b) for a, b in pairs)


def test_labels_have_the_true_probabilities(simulated):
    """Also after attribution and the windows: the mean label of each objective is the mean of its probability."""
    dataset, impressions, actions, truth = simulated
    shown, acted = Events.of(impressions), Events.of(actions)
    labels = label(impressions.num_rows, acted, Attribution(shown, acted, dataset).credited, dataset)
    clicked = labels.clicked > 0
    for objective in OBJECTIVES:
        rows = {"all": np.ones_like(clicked), "clicked": clicked, "not_clicked": ~clicked}[objective.rows]
        positive = (getattr(labels, objective.label) > 0)[rows]
        probability = truth[objective.name].to_numpy()[rows]
        noise = np.sqrt((probability * (1 - probability)).sum()) / len(probability)
        assert positive.mean() == pytest.approx(probability.mean(), abs=4 * noise), objective.name
        upper = probability > np.median(probability)
        assert positive[upper].mean() == pytest.approx(probability[upper].mean(), abs=6 * noise), objective.name


def test_every_conversion_inside_its_window_finds_its_impression(simulated):
    dataset, impressions, actions, _ = simulated
    credited = Attribution(Events.of(impressions), Events.of(actions), dataset).credited
    caused_by = pc.divide(actions["action_id"], 4).to_numpy()
    found = credited >= 0
    assert (impressions["impression_id"].to_numpy()[credited[found]] == caused_by[found]).all()
    assert found.mean() > 0.8


def test_frequencies_are_zipf(simulated):
    _, impressions, _, _ = simulated
    counts = np.sort(np.unique(impressions["item_id"].to_numpy(), return_counts=True)[1])[::-1]
    assert counts[0] > 5 * counts[20] > 0


def test_attribution_by_another_entity_is_refused(small_config):
    rule = small_config.dataset.attribution["checkout"].model_copy(update={"entity": "item_id"})
    dataset = small_config.dataset.model_copy(
        update={"attribution": {**small_config.dataset.attribution, "checkout": rule}}
    )
    with pytest.raises(InputError, match="campaign_id"):
        simulate(small_config.source, dataset)
