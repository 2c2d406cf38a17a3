"""torch to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch
from torch import nn

from components.common.features import FeatureConfig
from components.common.int4 import Int4Layout
from components.common.servable import ONNX_OUTPUT
from components.export.config import ExportConfig
from components.train.model.embeddings import Embeddings

_ROWS = 3


def packed_inputs(features: FeatureConfig, layout: Int4Layout) -> tuple[torch.Tensor, ...]:
    """Inputs of a `PackedRanker`, all zeros; `layout` is that with the most blocks."""
    halves, blocks, length = layout.dim // 2, layout.num_blocks, features.sequence.length
    shapes = [
        ((_ROWS,), features.num_look_ups(features.categorical_tables)),
        ((_ROWS, length), features.num_look_ups(features.sequence_tables)),
    ]
    categorical, sequence = (
        (
            torch.zeros(*shape, rows, halves, dtype=torch.uint8),
            torch.zeros(*shape, rows, blocks, dtype=torch.float16),
            torch.zeros(*shape, rows, blocks, dtype=torch.float16),
        )
        for shape, rows in shapes
    )
    return (*categorical, torch.zeros(_ROWS, len(features.dense_names)), *sequence, torch.tensor([0, 1, length]))


def vector_inputs(embeddings: Embeddings, num_dense: int) -> tuple[torch.Tensor, ...]:
    """Inputs of a `ServedRanker`, all zeros."""
    categorical, sequence = embeddings.zeros(_ROWS)
    return categorical, torch.zeros(_ROWS, num_dense), sequence, torch.tensor([0, 1, sequence.shape[1]])


def export_onnx(
    ranker: nn.Module, arguments: tuple[torch.Tensor, ...], names: tuple[str, ...], config: ExportConfig
) -> bytes:
    """Export a ranker with a free batch dimension.

    Args:
        ranker: From the arguments to probabilities.
        arguments: Of three rows.
        names: The arguments'.
        config: Opset and largest batch.

    Raises:
        RuntimeError: If the exporter fixed the batch size.
    """
    batch = torch.export.Dim("batch", min=1, max=config.max_batch)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ranker.eval(),
            arguments,
            dynamo=True,
            opset_version=config.opset,
            dynamic_shapes=tuple({0: batch} for _ in arguments),
            input_names=list(names),
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
