"""The REST API's own description, in place of the one that KServe makes of all that it could do."""

from __future__ import annotations

from importlib import metadata, resources
from typing import Any

import yaml

from components.serve.config import RankerTierConfig


def openapi_document(config: RankerTierConfig) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a ranker with these settings."""
    text = resources.files("components.serve").joinpath("openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    limits = dict(stated.split("=", 1) for stated in config.stated_limits if stated.startswith("max_"))
    document["info"] |= {
        "version": metadata.version("afterclick"),
        "x-limits": {name: int(value) for name, value in limits.items()} | {"request_seconds": config.request_seconds},
    }
    return document
