"""Schemas of custom resources as strict as the API server is with strict validation."""

from __future__ import annotations

from typing import Any


def closed(schema: Any) -> Any:
    """A schema that refuses fields that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    narrow = {key: closed(value) for key, value in schema.items()}
    if (
        "properties" in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and schema.get("type") == "object"
    ):
        narrow.setdefault("additionalProperties", False)
        if set(schema["properties"]) >= {"apiVersion", "kind", "metadata"}:
            narrow["properties"]["metadata"] = {"type": "object"}
    return narrow
