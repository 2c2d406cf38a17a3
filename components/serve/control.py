"""Control calls, which change what is served: they need the token, over either protocol."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from components.serve.observability import CONTROL_REFUSED, log_event
from components.serve.tier_credentials import TierCredentials

NOT_ALLOWED = (
    "this call changes what is served; send the server's control token as `authorization: Bearer TOKEN` "
    "(afterclick rollout --token FILE)"
)
# Whatever else there is, or comes with a release of KServe, needs the token.
_OPEN_METHODS = {"ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer"}
_OPEN_POSTS = ("/infer", ":predict", ":explain")


def is_control_method(method: str) -> bool:
    """Whether a method of gRPC, `/package.Service/Method`, needs the token."""
    return method.rpartition("/")[2] not in _OPEN_METHODS


def is_control_request(method: str, path: str) -> bool:
    """Whether a REST request needs it."""
    return method not in ("GET", "HEAD") and not (method == "POST" and path.endswith(_OPEN_POSTS))


def refused(tier: str, call: str, peer: object) -> None:
    """Log and count a call that did not have it."""
    CONTROL_REFUSED.labels(tier).inc()
    log_event("control call refused", logging.WARNING, call=call, peer=str(peer))


def _allowed(credentials: TierCredentials, details: grpc.HandlerCallDetails) -> bool:
    if not is_control_method(details.method):
        return True
    return credentials.may_control(str(dict(details.invocation_metadata or ()).get("authorization", "")))


class ControlGuard(grpc.ServerInterceptor):
    """Before the embedding tier's calls."""

    def __init__(self, credentials: TierCredentials) -> None:
        """Ask for the token that credentials have."""
        self._credentials = credentials

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Answer a call, or refuse it."""
        if _allowed(self._credentials, details):
            return continuation(details)

        def refuse(_: object, context: grpc.ServicerContext) -> None:
            refused("embedding", details.method, context.peer())
            context.abort(grpc.StatusCode.UNAUTHENTICATED, NOT_ALLOWED)

        return grpc.unary_unary_rpc_method_handler(refuse)


class AsyncControlGuard(grpc.aio.ServerInterceptor):
    """Before the ranker tier's calls of gRPC."""

    def __init__(self, credentials: TierCredentials) -> None:
        """Ask for the token that credentials have."""
        self._credentials = credentials

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Answer a call, or refuse it."""
        if _allowed(self._credentials, details):
            return await continuation(details)

        async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
            refused("ranker", details.method, context.peer())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, NOT_ALLOWED)

        return grpc.unary_unary_rpc_method_handler(refuse)
