"""Requests from a store's logs, with the probabilities that each of its versions owes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import islice

import numpy as np

from cli.logged_requests import logged_requests
from components.common.layout import Store
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.serve.tensors import request_tensors
from components.version.predictor import Predictor
from components.version.version import Version


@dataclass(frozen=True)
class Owed:
    """What is asked, and what must be answered.

    Attributes:
        requests: As JSON, from the logs.
        tensors: The same as tensors.
        expected: By version, what the evaluator's examples give: per request, shape (served objectives, n).
    """

    requests: list[dict]
    tensors: list[dict[str, np.ndarray]]
    expected: dict[str, list[np.ndarray]]


def owed_by(store: Store, day: date, digests: tuple[str, ...], number: int) -> Owed:
    """The first requests of a day's logs, as the first version's features have them."""
    contract = Version.published(store, digests[0]).contract()
    found = list(islice(logged_requests(store, day, contract), number))
    table, _ = read_examples(store, EVALUATION, day)
    columns, expected = [OBJECTIVE_NAMES.index(name) for name in DEFAULT_SERVED], {}
    for digest in digests:
        probabilities = Predictor.from_version(Version.published(store, digest)).predict(table)[:, columns]
        expected[digest] = [probabilities[logged.rows].T for logged in found]
    requests = [logged.request for logged in found]
    return Owed(requests, [request_tensors(request) for request in requests], expected)
