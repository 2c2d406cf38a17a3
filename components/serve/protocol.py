"""Messages and stubs of the Open Inference Protocol v2, as KServe has them."""

from __future__ import annotations

import sys

# KServe parses the process's own arguments when it is imported, and would take `--config` for one of its own.
_arguments, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
finally:
    sys.argv = _arguments

__all__ = ["pb", "pb_grpc"]
