"""What rankers have counted of two versions, from their own metrics: requests, failures, seconds, predictions."""

from __future__ import annotations

import math
import ssl
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, tuple[tuple[str, str], ...]]
Samples = dict[Sample, float]

_OURS, _TIMEOUT_SECONDS = "afterclick_", 5.0


@dataclass(frozen=True)
class Mean:
    """The mean of so many values.

    Attributes:
        count: How many.
        total: Their sum.
        squares: The sum of their squares; 0 where they are not counted.
    """

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @property
    def value(self) -> float:
        """The mean; NaN of none."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """Of the mean, if values are independent."""
        return max(self.squares / self.count - self.value**2, 0.0) / self.count if self.count else math.nan


@dataclass(frozen=True)
class VersionFigures:
    """What servers counted of a version.

    Attributes:
        requests: That it was chosen for, failed ones too.
        errors: Those of them that failed, whoever's fault.
        request_seconds: Answered requests that took at most so many seconds, by these.
        rank_seconds: Likewise runs of the net, those in shadow too.
        predictions: Of answered requests, by objective.
    """

    requests: float = 0.0
    errors: float = 0.0
    request_seconds: dict[float, float] = field(default_factory=dict)
    rank_seconds: dict[float, float] = field(default_factory=dict)
    predictions: dict[str, Mean] = field(default_factory=dict)


@dataclass(frozen=True)
class ShadowFigures:
    """What servers counted of a version that scored requests in shadow.

    Attributes:
        requests: That it scored, or failed to.
        errors: Those that it failed to score.
        dropped: Those that came when too many waited.
        predictions: Its own, by objective.
        answered: Of the version that answered the same requests.
        differences: Absolute ones between the two.
    """

    requests: float = 0.0
    errors: float = 0.0
    dropped: float = 0.0
    predictions: dict[str, Mean] = field(default_factory=dict)
    answered: dict[str, Mean] = field(default_factory=dict)
    differences: dict[str, Mean] = field(default_factory=dict)


def read_samples(url: str, context: ssl.SSLContext | None = None) -> Samples:
    """The metrics of a server.

    Args:
        url: Of its metrics.
        context: By which a server of HTTPS is known.

    Raises:
        OSError: If it cannot be asked, or answers something else.
    """
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS, context=context) as answer:
        text = answer.read().decode()
    try:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            if family.name.startswith(_OURS)
            for sample in family.samples
        }
    except ValueError as error:
        raise OSError(f"{url}: not in Prometheus's text format ({error})") from error


class Counted:
    """What some servers count from a moment on, whether they are restarted or not."""

    def __init__(self, urls: Iterable[str], read: Callable[[str], Samples] = read_samples) -> None:
        """Count from the first time that each of them is asked."""
        self._urls, self._read = tuple(urls), read
        self._before: dict[str, Samples] = {}
        self._now: dict[str, Samples] = {}
        self.unread: dict[str, str] = {}

    def ask(self) -> None:
        """Ask all of them; of one that does not answer, what it said last stays."""
        self.unread = {}
        for url in self._urls:
            try:
                self._now[url] = self._read(url)
            except OSError as error:
                self.unread[url] = str(error)
                continue
            self._before.setdefault(url, self._now[url])

    @property
    def since(self) -> Samples:
        """Since the first time, all servers together; of a server that began anew, since then."""
        total: Samples = defaultdict(float)
        for url, samples in self._now.items():
            before = self._before[url]
            for key, value in samples.items():
                total[key] += value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value
        return total

    @property
    def ever(self) -> Samples:
        """Since the servers started, all of them together."""
        total: Samples = defaultdict(float)
        for samples in self._now.values():
            for key, value in samples.items():
                total[key] += value
        return total


def version_figures(samples: Samples, version: str) -> VersionFigures:
    """What samples say of a version."""
    requests = errors = 0.0
    for labels, value in _of(samples, "afterclick_requests_total", version):
        if labels["tier"] == "ranker":
            requests += value
            errors += value if labels["code"] != "OK" else 0.0
    return VersionFigures(
        requests=requests,
        errors=errors,
        request_seconds=_histogram(samples, "afterclick_request_seconds", version),
        rank_seconds=_histogram(samples, "afterclick_rank_seconds", version),
        predictions=_means(samples, "afterclick_prediction", version, "afterclick_prediction_squares_total"),
    )


def shadow_figures(samples: Samples, version: str) -> ShadowFigures:
    """What samples say of a version in shadow."""
    codes = {labels["code"]: value for labels, value in _of(samples, "afterclick_shadow_requests_total", version)}
    errors = codes.get("ERROR", 0.0)
    return ShadowFigures(
        requests=codes.get("OK", 0.0) + errors,
        errors=errors,
        dropped=codes.get("DROPPED", 0.0),
        predictions=_means(samples, "afterclick_shadow_prediction", version),
        answered=_means(samples, "afterclick_shadow_answered_prediction", version),
        differences=_means(samples, "afterclick_shadow_difference", version),
    )


def _of(samples: Samples, name: str, version: str) -> list[tuple[dict[str, str], float]]:
    found = ((dict(labels), value) for (sample, labels), value in samples.items() if sample == name)
    return [(labels, value) for labels, value in found if labels.get("version") == version]


def _histogram(samples: Samples, name: str, version: str) -> dict[float, float]:
    buckets: dict[float, float] = defaultdict(float)
    for labels, value in _of(samples, f"{name}_bucket", version):
        if labels.get("tier", "ranker") == "ranker":
            buckets[float(labels["le"])] += value
    return dict(sorted(buckets.items()))


def _means(samples: Samples, name: str, version: str, squares: str = "") -> dict[str, Mean]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for part, sample in (("count", f"{name}_count"), ("total", f"{name}_sum"), ("squares", squares)):
        for labels, value in _of(samples, sample, version) if sample else []:
            found[labels["objective"]][part] = value
    return {objective: Mean(**parts) for objective, parts in found.items()}


def quantile(buckets: dict[float, float], share: float) -> float:
    """Seconds that a share of the events took at most, evenly spread within a bucket as Prometheus has it.

    Of those beyond the last bound, that bound; NaN of none.
    """
    total = max(buckets.values(), default=0.0)
    if not total:
        return math.nan
    wanted, low, below = min(max(share, 0.0), 1.0) * total, 0.0, 0.0
    for bound, count in buckets.items():
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (count - below) if count > below else bound
        low, below = bound, count
    return low
