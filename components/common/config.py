"""The strict base of every configuration: unknown keys fail, values are bounded, digests are stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from components.common import storage
from components.common.digests import digest_json
from components.common.errors import InputError


class Config(BaseModel):
    """Immutable configuration or record whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate plain values (from YAML, or from a kfp parameter, where integers arrive as floats).

        Args:
            values: The keys and values.
            where: Names the section in error messages, e.g. `configs/demo.yaml: join`.

        Raises:
            InputError: One line that names every offending field, its value and what it must be.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{where}: {_describe(error)}") from error

    def digest(self) -> str:
        """SHA-256 of the resolved values."""
        return digest_json(self.model_dump(mode="json"))


_WORDING = {
    "tuple_type": "expected a list such as [a, b]",
    "date_from_datetime_parsing": "expected a UTC day such as 2017-03-01",
    "date_parsing": "expected a UTC day such as 2017-03-01",
}


def _describe(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "(whole section)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{field}: unknown key; remove it or correct its spelling")
        elif item["type"] == "missing":
            lines.append(f"{field}: required, not given")
        else:
            value = f" = {item['input']!r}" if isinstance(item["input"], str | int | float | bool) else ""
            lines.append(f"{field}{value}: {_WORDING.get(item['type'], item['msg'].removeprefix('Value error, '))}")
    return "; ".join(lines)


def read_yaml(uri: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: If the file is absent, is not YAML, or is not a mapping.
    """
    if not storage.exists(uri):
        raise InputError(f"{uri}: no such configuration file")
    try:
        values = yaml.safe_load(storage.read_bytes(uri))
    except yaml.YAMLError as error:
        raise InputError(f"{uri}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{uri}: expected a mapping of sections, found {type(values).__name__}")
    return values
