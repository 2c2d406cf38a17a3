import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.common.errors import InputError
from components.features.examples import EVALUATION, TRAINING, read_examples
from components.features.feature_list import FeatureConfig
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES, OBJECTIVES, negative_rate
from components.ranker.config import ModelConfig
from components.ranker.dataset import participation, tensors_of
from components.ranker.feature_processing import DenseNormalizer, Moments
from components.ranker.presets import paper_features
from components.ranker.ranker import LogitCorrection, Ranker
from components.ranker.sequence import SequenceEncoder


@pytest.fixture(scope="module")
def examples(joined):
    table, _ = read_examples(joined.store, TRAINING, joined.batch_days[0])
    return tensors_of(table, joined.config.features, unsampled=False)


@pytest.fixture(scope="module")
def model(joined):
    torch.manual_seed(0)
    return Ranker(joined.config.features, joined.config.arms["baseline"].model)


def test_logits_of_a_row_do_not_depend_on_its_batch(model, examples):
    model.eval()
    with torch.no_grad():
        together = model(examples.batch(slice(0, 50)))
        alone = torch.cat([model(examples.batch(slice(i, i + 1))) for i in range(50)])
    assert together.shape == (50, len(OBJECTIVES))
    assert torch.allclose(together, alone, atol=1e-5)


def test_row_without_history_is_finite(model, examples):
    empty = examples.lengths == 0
    assert empty.any()
    assert torch.isfinite(model(examples.batch(empty.nonzero().view(-1)[:2]))).all()


def test_padding_is_not_seen():
    torch.manual_seed(0)
    encoder = SequenceEncoder(3, 4, ModelConfig(sequence_dim=8)).eval()
    sequence, lengths = torch.randn(2, 4, 3), torch.tensor([2, 0])
    changed = sequence.clone()
    changed[0, 2:] = 9.0
    changed[1] = 9.0
    with torch.no_grad():
        assert torch.allclose(encoder(sequence, lengths), encoder(changed, lengths), atol=1e-6)
        assert torch.equal(encoder(sequence, lengths)[1], torch.zeros(8))


def test_loss_is_the_masked_mean(model, examples):
    batch = examples.batch(slice(0, 64))
    weights = torch.arange(1.0, 7.0)
    total, losses = model.loss(batch, weights)
    probabilities = torch.sigmoid(model(batch)).double()
    for number in range(len(OBJECTIVES)):
        rows = batch.masks[:, number] > 0
        p, y = probabilities[rows, number], batch.labels[rows, number]
        expected = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
        assert losses[number].item() == pytest.approx(expected.item(), rel=1e-4)
    assert total.item() == pytest.approx((losses * weights).sum().item(), rel=1e-5)


def test_objective_without_rows_in_a_batch_has_no_loss(model, examples):
    batch = examples.batch(slice(0, 8))
    batch.masks[:, 3] = 0
    assert model.loss(batch, torch.ones(6))[1][3] == 0


def test_participation_follows_the_design():
    table = pa.table(
        {
            "clicked": [1, 0, 0, 0],
            "good_clicked": [0, 0, 0, 0],
            "add_to_carts": [0, 2, 0, 0],
            "checkouts": [1, 0, 0, 0],
            "negative_kept": [False, False, True, False],
        }
    )
    found = {o.name: participation(o, table, unsampled=False) for o in OBJECTIVES}
    assert found["click"][1].tolist() == [True, False, True, False]
    assert found["good_click"][1].tolist() == [False, False, True, False]
    assert found["checkout_given_click"][1].tolist() == [True, False, False, False]
    assert found["add_to_cart_given_view"][1].tolist() == [False, True, True, False]
    assert found["checkout_given_view"][1].tolist() == [False, False, True, False]
    assert found["checkout_given_click"][0].tolist() == [True, False, False, False]
    everything = participation(OBJECTIVES[0], table, unsampled=True)
    assert everything[1].all()


def test_correction_undoes_the_sampling_of_negatives():
    """p' = p r' / (p + (1 - p) r) turns back into p."""
    rate, p = 0.2, 0.03
    sampled = p / (p + (1 - p) * rate)
    logits = torch.full((1, len(OBJECTIVES)), math.log(sampled / (1 - sampled)))
    corrected = LogitCorrection(rate)(logits)[0]
    for objective, probability in zip(OBJECTIVES, corrected.tolist(), strict=True):
        expected = p if negative_rate(objective, rate) == rate else sampled
        assert probability == pytest.approx(expected, rel=1e-5)


def test_down_sampled_negatives_are_the_hash_s_share(joined):
    """Each head's negatives are a uniform sample at one rate, whatever other objectives kept."""
    (kept, _), (everything, _) = (
        read_examples(joined.store, split, joined.scored_day) for split in (TRAINING, EVALUATION)
    )
    rate = joined.config.join.negative_keep_rate
    for objective in OBJECTIVES:
        if objective.rows == "clicked":
            continue
        sampled_label, sampled_mask = participation(objective, kept, unsampled=False)
        label, mask = participation(objective, everything, unsampled=True)
        assert sampled_label.sum() == label.sum()
        negatives, all_negatives = (sampled_mask & ~sampled_label).sum(), (mask & ~label).sum()
        assert negatives / all_negatives == pytest.approx(rate, abs=4 * math.sqrt(rate / all_negatives))


def dense_features(*numbers):
    """A feature list whose dense features are these numbers only."""
    none = {"counts": {"entities": []}, "engagement": {"entities": []}}
    values = {"categorical": [{"name": "item_id", "num_rows": 2}], "numbers": numbers, **none}
    return FeatureConfig.parse(values, "features")


def test_normalizer_standardises_logarithms():
    normalize = DenseNormalizer(dense_features("first", "second"))
    dense = torch.tensor([[0.0, 5.0], [math.e - 1, 5.0]])
    moments = Moments(dense.shape[1])
    for part in dense.split(7):
        moments.add(part)
    normalize.fit(moments)
    assert torch.allclose(normalize(dense)[:, 0], torch.tensor([-1.0, 1.0]))
    assert torch.equal(normalize(dense)[:, 1], torch.zeros(2))
    assert normalize(torch.tensor([[1e30, 5.0]]))[0, 0] == 5.0


def test_normalizer_takes_ranges_of_numbers_that_ask_for_it():
    normalize = DenseNormalizer(dense_features({"name": "first", "scale": "min_max"}, "second", "third"))
    dense = torch.tensor([[-2.0, 0.0, 7.0], [6.0, math.e - 1, 7.0]])
    normalize.fit(Moments.of(dense))
    found = normalize(torch.tensor([[0.0, 0.0, 7.0], [9.0, math.e - 1, 7.0], [-3.0, 0.0, 7.0]]))
    assert torch.allclose(found, torch.tensor([[0.25, -1.0, 0.0], [1.0, 1.0, 0.0], [0.0, -1.0, 0.0]]))
    constant = DenseNormalizer(dense_features({"name": "first", "scale": "min_max"}))
    constant.fit(Moments.of(torch.full((3, 1), 5.0)))
    assert torch.equal(constant(torch.tensor([[5.0], [5.5]])), torch.tensor([[0.0], [0.5]]))


def test_heads_start_at_the_share_of_positives(model):
    rates = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0, 1.0])
    model.net.heads.start_at(rates)
    zeros = torch.zeros(1, model.net.heads.heads["click"][0].in_features)
    for layer in model.net.heads.heads.values():
        torch.nn.init.zeros_(layer[-1].weight)
    found = torch.sigmoid(model.net.heads(zeros))[0]
    assert torch.allclose(found, rates.clamp(1e-4, 1 - 1e-4), atol=1e-5)


def test_parameter_names_are_those_of_published_checkpoints(model):
    """A change breaks warm starts from checkpoints that exist: then it needs a migration."""
    from pathlib import Path

    expected = Path("tests/golden/parameter_names.txt").read_text().split()
    assert sorted(model.state_dict()) == expected


def test_objectives_are_six_of_which_two_are_served_by_default():
    assert OBJECTIVE_NAMES[:2] == ("click", "good_click")
    assert DEFAULT_SERVED == ("checkout_given_click", "checkout_given_view")
    assert np.unique(OBJECTIVE_NAMES).size == 6


def test_paper_preset_has_the_paper_s_size():
    """Qiu et al. 2025: 60 tables, about 167 million parameters in tables and 130 million in the net."""
    features = paper_features()
    ranker = Ranker(features, ModelConfig(preset="paper"))
    assert len(features.categorical) == 60 and {code.code_bits for code in features.binary_codes.values()} == {21}
    assert ranker.embeddings.weight.numel() == pytest.approx(167e6, rel=0.01)
    assert sum(parameter.numel() for parameter in ranker.net.parameters()) == pytest.approx(130e6, rel=0.01)


def test_preset_gives_way_to_what_is_given():
    assert ModelConfig.parse({"preset": "tiny", "head_size": 5}, "model").head_size == 5
    assert ModelConfig.parse({"preset": "tiny"}, "model").embedding_dim == 8
    assert ModelConfig.model_validate(ModelConfig(preset="demo").model_dump()) == ModelConfig(preset="demo")


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match=r"preset: 'huge' is not one of \['tiny', 'demo', 'paper'\]"):
        ModelConfig.parse({"preset": "huge"}, "model")
