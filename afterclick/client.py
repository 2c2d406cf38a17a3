"""Clients of the ranker servers; importing it needs grpc, NumPy and KServe's messages, no torch and no pandas."""

from components.common.errors import InputError
from components.serve.async_client import AsyncRankerClient
from components.serve.client import RankerClient
from components.serve.client_calls import ServerError
from components.serve.client_connection import Connection
from components.serve.client_inputs import FieldError
from components.version.wire_names import Ranking

__all__ = ["AsyncRankerClient", "Connection", "FieldError", "InputError", "RankerClient", "Ranking", "ServerError"]
