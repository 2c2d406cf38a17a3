"""The strict base of every configuration, and the resolved configuration of a run.

Unknown keys fail, values are bounded, digests are stable. A run's configuration is one file in the store, named by its
digest; pipelines hand its address from step to step, and each step reads its own sections.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from components.common import storage
from components.common.digests import digest_bytes, digest_json
from components.common.errors import InputError

T = TypeVar("T", bound=Hashable)


def _check_distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice; take one out")
    return values


Distinct = AfterValidator(_check_distinct)
# Whatever draws by it takes it as a number of 64 bits with a sign.
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Config(BaseModel):
    """Immutable configuration or record whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str, lines: YamlLines | None = None) -> Self:
        """Validate plain values, from YAML or JSON.

        Args:
            values: The keys and values.
            where: Names the section in error messages, e.g. `configs/demo.yaml: join`.
            lines: Where the values stand in their file.

        Raises:
            InputError: One line that names every offending field, its value and what it must be.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{where}: {_describe(error, lines or YamlLines())}") from error

    def digest(self) -> str:
        """SHA-256 of the resolved values."""
        return digest_json(self.model_dump(mode="json"))


class GrownConfig(Config):
    """One with fields that came later: where these are not used, its values and digest are what they were before."""

    later: ClassVar[tuple[str, ...]]

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        unused = [name for name in self.later if getattr(self, name) == type(self).model_fields[name].default]
        return {key: value for key, value in values.items() if key not in unused}


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class ResolvedConfig:
    """The configuration of a run: plain values by section, in the order in which they were written.

    Attributes:
        uri: Its file, whose name is the SHA-256 of its bytes; so a file is never changed.
        values: By section.
    """

    uri: str
    values: dict[str, Any]

    @classmethod
    def write(cls, folder_uri: str, values: dict[str, Any]) -> ResolvedConfig:
        """Write plain values to their file in a folder, unless it is there."""
        # Not the canonical text: that would sort what is read in the order of writing.
        content = json.dumps(values, indent=1, allow_nan=False).encode()
        uri = storage.join_uri(folder_uri, f"{digest_bytes(content)}.json")
        if storage.find_bytes(uri) != content:
            storage.write_bytes(uri, content)
        return cls(uri, values)

    @classmethod
    @lru_cache(maxsize=8)
    def open(cls, uri: str) -> ResolvedConfig:
        """Read a file, and compare it with its name.

        Raises:
            InputError: If it is absent, or its bytes are not those that it is named by.
        """
        content = storage.find_bytes(uri)
        if content is None:
            raise InputError(f"{uri}: no such configuration; `afterclick compile --config` writes it to the store")
        if digest_bytes(content) != posixpath.basename(uri).removesuffix(".json"):
            raise InputError(f"{uri}: its bytes are not those that it is named by; write the configuration again")
        return cls(uri, json.loads(content))

    def section(self, kind: type[C], *path: str) -> C:
        """One section, validated, such as `gate`, or `arms`, `control`.

        Raises:
            InputError: If it is absent, or not one of this release.
        """
        values: Any = self.values
        for name in path:
            if not isinstance(values, dict) or name not in values:
                raise InputError(f"{self.uri}: has no section {'.'.join(path)}")
            values = values[name]
        return kind.parse(values, f"{self.uri}: {'.'.join(path)}")


_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)")
_WORDING = {
    "tuple_type": "expected a list such as [a, b]",
    "date_from_datetime_parsing": "expected a UTC day such as 2017-03-01",
    "date_parsing": "expected a UTC day such as 2017-03-01",
}


def _describe(error: ValidationError, yaml_lines: YamlLines) -> str:
    lines = []
    for item in error.errors():
        said = item["msg"].removeprefix("Value error, ")
        # A check of several sections names the field itself.
        named = _FIELD.match(said) if not item["loc"] else None
        line = yaml_lines.find(named[1].split(".") if named else item["loc"])
        at = "" if line is None else f"line {line}: "
        if not item["loc"] and item["type"] == "value_error":
            lines.append(at + said)
            continue
        field = at + (".".join(str(part) for part in item["loc"]) or "(whole section)")
        if item["type"] == "extra_forbidden":
            lines.append(f"{field}: unknown key; remove it or correct its spelling")
        elif item["type"] == "missing":
            lines.append(f"{field}: required, not given")
        else:
            value = f" = {item['input']!r}" if isinstance(item["input"], str | int | float | bool) else ""
            lines.append(f"{field}{value}: {_WORDING.get(item['type'], said)}")
    return "; ".join(lines)


class YamlLines:
    """Lines of the keys and items of a YAML file, from 1."""

    def __init__(self, content: bytes = b"") -> None:
        """Find the lines of a file that is valid YAML."""
        self._lines: dict[tuple[str | int, ...], int] = {}
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        if root is not None:
            self._add((), root)

    def _add(self, path: tuple[str | int, ...], node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._lines[(*path, key.value)] = key.start_mark.line + 1
                self._add((*path, key.value), value)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self._lines[(*path, number)] = value.start_mark.line + 1
                self._add((*path, number), value)

    def find(self, location: Sequence[str | int]) -> int | None:
        """The line of a field, or of what it would stand in; None where neither is in the file.

        What an arm's section does not have comes from the section `train`, and pydantic names a union's kind as well.
        """
        own = self._deepest(location)
        if location and location[0] == "arms":
            shared = self._deepest(("train", *location[2:]))
            own = shared if len(shared) - len(("train",)) > len(own) - len(("arms", "arm")) else own
        return self._lines.get(own)

    def _deepest(self, location: Sequence[str | int]) -> tuple[str | int, ...]:
        path: tuple[str | int, ...] = ()
        for part in location:
            if (*path, part) in self._lines:
                path = (*path, part)
        return path


def read_yaml(uri: str) -> tuple[dict[str, Any], YamlLines]:
    """Read a YAML mapping, and where its values stand.

    Raises:
        InputError: If the file is absent, is not YAML, or is not a mapping.
    """
    content = storage.find_bytes(uri)
    if content is None:
        raise InputError(f"{uri}: no such configuration file")
    try:
        values, lines = yaml.safe_load(content), YamlLines(content)
    except yaml.YAMLError as error:
        raise InputError(f"{uri}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{uri}: expected a mapping of sections, found {type(values).__name__}")
    return values, lines
