"""The exported ranker on a GPU predicts what it predicts on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.common.layout import Store
from components.version import session
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT
from components.version.request import Limits
from components.version.version import Version
from tests.benchmarks.serve_version import FEATURES, Requests, write_version

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]


def test_ranker_on_a_gpu_equals_the_cpu(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    version = Version.published(store, write_version(store, "local"))
    contract, tables = version.contract(), version.tables()
    request = contract.read(Requests(200).tensors(), Limits())
    categorical, sequence, lengths = contract.ids(request)
    inputs = (
        tables.look_up(FEATURES.categorical_tables, categorical),
        contract.dense(request),
        tables.look_up(FEATURES.sequence_tables, sequence),
        lengths,
        np.zeros(200, dtype=np.int64),
    )
    on_gpu = session.start_session(version.onnx(), "gpu")
    assert on_gpu.get_providers()[0] == "CUDAExecutionProvider"
    monkeypatch.setattr(session, "_DRIVER", tmp_path / "none")
    on_cpu = session.start_session(version.onnx(), "cpu")
    feed = dict(zip(ONNX_INPUTS, inputs, strict=True))
    expected, found = (np.asarray(one.run([ONNX_OUTPUT], feed)[0]) for one in (on_cpu, on_gpu))
    assert np.abs(found - expected).max() < 1e-3
