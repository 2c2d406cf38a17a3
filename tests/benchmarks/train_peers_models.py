"""DCNv2 of other libraries behind one interface, each trained by the library's own loop over ready batches.

All have full-rank cross layers beside an MLP with batch normalisation (torch-rechub's has no other), no dropout, no
regularisation, binary cross-entropy, and `torch.optim.Adam` at 1e-3 over all rows, as each library makes it.
"""

from __future__ import annotations

from collections import OrderedDict
from unittest import mock

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DCN, basemodel
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.ranking import DCNv2
from torch_rechub.trainers import CTRTrainer

from tests.benchmarks.train_dcn import CROSS_LAYERS, HIDDEN_SIZES, LEARNING_RATE
from tests.benchmarks.train_rows import BATCH, Rows, Size

_LABEL = "label"


def _by_name(size: Size, rows: Rows) -> list[dict[str, Tensor]]:
    """A column a feature, as a loader of FuxiCTR or torch-rechub hands them out."""
    return [
        {name: torch.from_numpy(part.ids[:, number].copy()) for number, name in enumerate(size.names)}
        for part in rows.split(BATCH)
    ]


class _FuxiCtrDcn(BaseModel):
    """The parallel DCNv2 of FuxiCTR's model zoo, which its wheel leaves out, from the wheel's layers and base class."""

    def __init__(self, feature_map: FeatureMap, dim: int) -> None:
        super().__init__(feature_map, model_id="DCNv2", verbose=0, model_root="build", metrics=["AUC"])
        width = dim * len(feature_map.features)
        self.embedding_layer = FeatureEmbedding(feature_map, dim)
        self.crossnet = CrossNetV2(width, CROSS_LAYERS)
        self.parallel_dnn = MLP_Block(width, hidden_units=list(HIDDEN_SIZES), batch_norm=True)
        self.fc = nn.Linear(width + HIDDEN_SIZES[-1], 1)
        self.compile("adam", "binary_crossentropy", LEARNING_RATE)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        vectors = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        mixed = torch.cat([self.crossnet(vectors), self.parallel_dnn(vectors)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(mixed))}


class FuxiCtr:
    """FuxiCTR: `BaseModel.train_epoch`, whose step also clips the norm of all gradients."""

    def __init__(self, size: Size) -> None:
        self._size = size
        feature_map = FeatureMap("rows", "build")
        feature_map.labels = [_LABEL]
        feature_map.features = OrderedDict(
            (name, {"source": "", "type": "categorical", "vocab_size": num_rows})
            for name, num_rows in zip(size.names, size.table_rows, strict=True)
        )
        self.model = _FuxiCtrDcn(feature_map, size.dim)
        # What `fit` sets before its first epoch; it evaluates after so many steps.
        self.model._max_gradient_norm, self.model._stop_training = 10.0, False
        self.model._total_steps, self.model._eval_steps = 0, 10**9

    def batches(self, rows: Rows) -> list[dict[str, Tensor]]:
        """In the form that a step takes."""
        batches = _by_name(self._size, rows)
        for batch, part in zip(batches, rows.split(BATCH), strict=True):
            batch[_LABEL] = torch.from_numpy(part.labels)
        return batches

    def train(self, batches: list[dict[str, Tensor]]) -> None:
        """A step on each batch."""
        self.model.train_epoch(batches)

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities, shape (n,)."""
        return self.model.predict(self.batches(rows))


class DeepCtrTorch:
    """DeepCTR-Torch: `fit`, the only place of its step, with slices in place of its loader, which goes row by row."""

    def __init__(self, size: Size) -> None:
        columns = [
            SparseFeat(name, num_rows, embedding_dim=size.dim)
            for name, num_rows in zip(size.names, size.table_rows, strict=True)
        ]
        self.model = DCN(
            linear_feature_columns=[],
            dnn_feature_columns=columns,
            cross_num=CROSS_LAYERS,
            cross_parameterization="matrix",
            dnn_hidden_units=HIDDEN_SIZES,
            l2_reg_linear=0,
            l2_reg_embedding=0,
            l2_reg_cross=0,
            dnn_use_bn=True,
        )
        self.model.compile("adam", "binary_crossentropy")

    def batches(self, rows: Rows) -> Rows:
        """As they are."""
        return rows

    def train(self, rows: Rows) -> None:
        """A step on each batch."""
        with mock.patch.object(basemodel, "DataLoader", _slices):
            self.model.fit([rows.ids], rows.labels, batch_size=BATCH, epochs=1, verbose=0, shuffle=False)

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities, shape (n,)."""
        with mock.patch.object(basemodel, "DataLoader", _slices):
            return self.model.predict([rows.ids], BATCH).reshape(-1)


def _slices(dataset: TensorDataset, batch_size: int, shuffle: bool) -> list[tuple[Tensor, ...]]:
    assert not shuffle
    return [dataset[start : start + batch_size] for start in range(0, len(dataset), batch_size)]


class TorchRechub:
    """torch-rechub: `CTRTrainer.train_one_epoch`."""

    def __init__(self, size: Size) -> None:
        self._size = size
        features = [
            SparseFeature(name, num_rows, embed_dim=size.dim)
            for name, num_rows in zip(size.names, size.table_rows, strict=True)
        ]
        self.model = DCNv2(features, CROSS_LAYERS, {"dims": list(HIDDEN_SIZES)}, use_low_rank_mixture=False)
        # Given, as its default decays weights.
        self._trainer = CTRTrainer(self.model, optimizer_params={"lr": LEARNING_RATE})

    def batches(self, rows: Rows) -> list[tuple[dict[str, Tensor], Tensor]]:
        """In the form that a step takes."""
        labels = [torch.from_numpy(part.labels) for part in rows.split(BATCH)]
        return list(zip(_by_name(self._size, rows), labels, strict=True))

    def train(self, batches: list[tuple[dict[str, Tensor], Tensor]]) -> None:
        """A step on each batch."""
        self._trainer.train_one_epoch(batches)

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities, shape (n,)."""
        return np.array(self._trainer.predict(self.model, self.batches(rows)))
