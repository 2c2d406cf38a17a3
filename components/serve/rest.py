"""The ranker's REST port: who gets in, and every refusal as a status and `{"error": ...}`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor import exceptions as grpc_errors
from starlette.exceptions import HTTPException

from components.serve.control import NOT_ALLOWED, is_control_request, refused
from components.serve.ranker_model import RankerModel
from components.serve.tensors import shortened

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_DISCARD_SECONDS = 30.0
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}}
_CLOSE = (b"connection", b"close")


class Admission:
    """Takes a REST request's body when it has one of the places that both protocols share, up to a size.

    While the server stops, answers close their connections, so that clients open the next one elsewhere.
    """

    def __init__(self, app: Any, model: RankerModel) -> None:
        """Stand before an application that asks a model."""
        self._app, self._model, self._config = app, model, model.tier.config

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start" and not self._model.serving:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        # Health and metadata, which have no body, need no place.
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, answer)
            return
        try:
            self._check_token(scope)
            self._check_length(scope)
            with self._model.admitted():
                body = await self._read(receive)
                if body is not None:
                    await self._app(scope, _replayed(body, receive), answer)
            return
        except _Refused as error:
            status, text = error.status, str(error)
        except grpc_errors.ResourceExhausted as error:
            status, text = _HTTP_STATUS[error.status_code], error.details
        await _refuse(receive, answer, JSONResponse({"error": text}, status, _HEADERS.get(status)))

    def _check_token(self, scope: Any) -> None:
        """Refuse to change what is served for whoever has not got the token."""
        if is_control_request(scope["method"], scope["path"]):
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not self._model.tier.credentials.may_control(given):
                refused("ranker", f"{scope['method']} {scope['path'][:200]}", scope.get("client"))
                raise _Refused(401, NOT_ALLOWED)

    def _check_length(self, scope: Any) -> None:
        """Refuse what says itself that it is too large."""
        length, limit = int(dict(scope["headers"]).get(b"content-length", 0)), self._config.max_message_bytes
        if length > limit:
            raise _Refused(413, f"the body has {length} bytes; at most {limit} are allowed")

    async def _read(self, receive: Any) -> bytes | None:
        """The body; None if the client went away."""
        parts, size, more, limit = [], 0, True, self._config.max_message_bytes
        try:
            async with asyncio.timeout(self._config.request_seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > limit:
                        raise _Refused(413, f"the body has more than {limit} bytes, the most allowed")
        except TimeoutError:
            raise _Refused(408, f"the body did not come within {self._config.request_seconds} seconds") from None
        return b"".join(parts)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _replayed(body: bytes, receive: Any) -> Any:
    whole = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Any:
        return next(whole, None) or await receive()

    return replay


async def _refuse(receive: Any, send: Any, response: JSONResponse) -> None:
    """Answer, and let what the client still sends come: a connection that is closed under it loses the answer."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def answer_errors(app: FastAPI) -> None:
    """Have an application answer its failures as `{"error": ...}`."""
    app.add_exception_handler(grpc_errors.GrpcException, _failed)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _no_request)


def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, grpc_errors.GrpcException)
    return JSONResponse({"error": error.details}, _HTTP_STATUS.get(error.status_code, 500))


def _unreadable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        text = f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    else:
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "InferenceRequest"))
        text = f"{where or 'the body'}: {first['msg']}"
    return JSONResponse({"error": shortened(text)}, 400)


def _no_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
