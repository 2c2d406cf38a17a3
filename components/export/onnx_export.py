"""torch to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch
from torch import nn

from components.export.config import ExportConfig
from components.export.onnx_graphs import serialized
from components.features.feature_list import FeatureConfig
from components.version.int4 import finest
from components.version.manifest import ONNX_OUTPUT
from components.version.packed_tables import PackedTable, look_up_rows

_ROWS, _USERS = 3, 2


def packed_inputs(features: FeatureConfig, specs: list[PackedTable]) -> tuple[torch.Tensor, ...]:
    """Inputs of a `PackedRanker` of these tables, all zeros."""
    length, row_bytes = features.sequence.length, finest(spec.layout for spec in specs).row_bytes
    categorical, sequence = (
        torch.zeros(*shape, len(look_up_rows(tables, specs, features)), row_bytes, dtype=torch.uint8)
        for shape, tables in (((_ROWS,), features.served_columns), ((_USERS, length), features.sequence_tables))
    )
    dense = torch.zeros(_ROWS, features.num_dense)
    return categorical, dense, sequence, torch.tensor([0, length]), torch.tensor([0, 1, 1])


def export_onnx(
    ranker: nn.Module, arguments: tuple[torch.Tensor, ...], names: tuple[str, ...], config: ExportConfig
) -> bytes:
    """Export a ranker with free numbers of rows and of users.

    Args:
        ranker: From the arguments to probabilities.
        arguments: Of three rows and two users.
        names: The arguments'.
        config: Opset.

    Raises:
        RuntimeError: If the exporter fixed one of these numbers.
    """
    free = {_ROWS: torch.export.Dim("batch", min=1), _USERS: torch.export.Dim("users", min=1)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ranker.eval(),
            arguments,
            dynamo=True,
            opset_version=config.opset,
            dynamic_shapes=tuple({0: free[len(argument)]} for argument in arguments),
            input_names=list(names),
            output_names=[ONNX_OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise RuntimeError(
                f"the exporter fixed the first dimension of {value.name!r}; report this with the versions installed"
            )
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return serialized(model)
