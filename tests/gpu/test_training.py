"""Training on a GPU against the CPU: the same updates, losses and checkpoints; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from components.tables.lazy_adam import LazyAdam
from components.tables.row_optimizer import RowOptimizer
from components.tables.rowwise_adagrad import RowwiseAdagrad
from components.train.one_model import train_batch
from components.train.training_state import load_state
from tests.unit.tables.test_lazy_adam import DIM, TABLES, batches, config_of, take_step
from tests.unit.train.test_resume import recipe
from tests.unit.train.test_run import copy_examples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (LazyAdam, {}),
        (LazyAdam, {"frequency_adaptive": {}}),
        (LazyAdam, {"frequency_adaptive": {"apply_to": "gradient"}, "bias_correction": "row"}),
        (RowwiseAdagrad, {"tables": "rowwise_adagrad"}),
        (RowwiseAdagrad, {"tables": "rowwise_adagrad", "frequency_adaptive": {}}),
    ],
)
def test_updates_are_those_of_the_cpu(make: type[RowOptimizer], changes):
    config, results = config_of(table_multiplier=50, **changes), []
    for device in ("cpu", "cuda"):
        weight = (torch.randn(sum(TABLES), DIM, generator=torch.Generator().manual_seed(1)) * 0.01).to(device)
        optimizer = make(weight, TABLES, config)
        for rows, gradients in batches():
            take_step(optimizer, rows.to(device), gradients.to(device))
        results.append(weight.cpu())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpoint_of_a_gpu_is_that_of_the_cpu(joined, tmp_path, precision):
    optimizer = {"learning_rate": 1e-3, "table_multiplier": 50, "tables": "lazy_adam", "frequency_adaptive": {}}
    found = {}
    for device in ("cpu", "cuda"):
        own = copy_examples(joined, str(tmp_path / device))
        config = recipe(
            optimizer=optimizer,
            epochs=1,
            precision="float32" if device == "cpu" else precision,
            model={"preset": "tiny"},
            execution={"device": device, "resume_steps": 5},
        )
        train_batch(own.store.root, "x", own.config.features, config, own.batch_days)
        found[device], _ = load_state(own.store, "x", own.batch_days[-1])
    rough = precision == "bfloat16"
    for name, value in found["cpu"].model.state_dict().items():
        difference = (found["cuda"].model.state_dict()[name] - value).abs().max()
        assert difference < (0.3 if rough else 2e-3), name
