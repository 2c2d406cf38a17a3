"""Records: small JSON files that steps exchange, each with a digest of its own values.

A record that was cut short, or changed by hand, is found out when it is read.
"""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import ValidationError

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json, digest_json
from components.common.errors import InputError

_DIGEST = "sha256"
R = TypeVar("R", bound=Config)


def write_record(uri: str, record: Config) -> None:
    """Write a record as canonical JSON, whole or not at all."""
    storage.write_bytes(uri, _content(record))


def create_record(uri: str, record: Config) -> bool:
    """Write a record unless its file is there; returns whether it was written, which one of many writers is told."""
    return storage.create_bytes(uri, _content(record))


def _content(record: Config) -> bytes:
    values = record.model_dump(mode="json")
    return canonical_json({**values, _DIGEST: digest_json(values)})


def find_record(uri: str, kind: type[R], remedy: str) -> R | None:
    """Read a record; None if it is not there.

    Args:
        uri: Its file.
        kind: Its class.
        remedy: What to do about a damaged one, for the error.

    Raises:
        InputError: If the file is no such record, or its values are not those that were written.
    """
    content = storage.find_bytes(uri)
    if content is None:
        return None
    try:
        values = json.loads(content)
        digest = values.pop(_DIGEST)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{uri}: cut short, or no record of this release; {remedy}") from error
    if digest_json(values) != digest:
        raise InputError(f"{uri}: was changed after it had been written; {remedy}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{uri}: not a {kind.__name__} of this release; {remedy}") from error
