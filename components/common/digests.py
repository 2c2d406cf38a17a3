"""SHA-256 digests of bytes and of JSON values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, so that equal values have equal bytes.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value's canonical text."""
    return digest_bytes(canonical_json(value))
