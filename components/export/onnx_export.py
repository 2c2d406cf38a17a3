"""torch to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch

from components.common.servable import ONNX_INPUTS, ONNX_OUTPUT
from components.export.config import ExportConfig
from components.export.ranker import ServedRanker
from components.train.model.embeddings import Embeddings


def export_onnx(ranker: ServedRanker, embeddings: Embeddings, num_dense: int, config: ExportConfig) -> bytes:
    """Export the ranker with a free batch dimension.

    Raises:
        RuntimeError: If the exporter fixed the batch size.
    """
    rows = 3
    categorical, sequence = embeddings.zeros(rows)
    lengths = torch.tensor([0, 1, sequence.shape[1]])
    batch = torch.export.Dim("batch", min=1, max=config.max_batch)
    arguments = (categorical, torch.zeros(rows, num_dense), sequence, lengths)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ranker.eval(),
            arguments,
            dynamo=True,
            opset_version=config.opset,
            dynamic_shapes=tuple({0: batch} for _ in arguments),
            input_names=list(ONNX_INPUTS),
            output_names=[ONNX_OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise RuntimeError(
                f"the exporter fixed the batch size of {value.name!r}; report this with the versions installed"
            )
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))
