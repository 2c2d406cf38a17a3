"""What the tiers say of themselves: Prometheus metrics, and one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram, Summary

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Of what a rollout compares: the bounds of a bucket lie closer together than versions may lie apart.
_FINE_SECONDS = (
    *(0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0),
)

REQUESTS = Counter("afterclick_requests", "Requests by outcome", ("tier", "version", "code"))
REQUEST_SECONDS = Histogram(
    "afterclick_request_seconds", "Time of a request", ("tier", "version"), buckets=_FINE_SECONDS
)
IN_FLIGHT = Gauge("afterclick_requests_in_flight", "Requests being answered", ("tier", "version"))
LOOK_UP_SECONDS = Histogram(
    "afterclick_look_up_seconds", "Time that a ranker waited for rows", ("version",), buckets=_SECONDS
)
RANK_SECONDS = Histogram("afterclick_rank_seconds", "Time of ONNX Runtime", ("version",), buckets=_FINE_SECONDS)
CANDIDATES = Counter("afterclick_candidates", "Candidates ranked", ("version",))
ROWS = Counter("afterclick_rows_looked_up", "Rows of embedding tables looked up", ("version",))
UNKNOWN_IDS = Counter(
    "afterclick_unknown_ids", "Candidates whose id has no row, or vector, of its own", ("version", "table")
)
ONLINE_UNTIL = Gauge(
    "afterclick_online_features_until_timestamp_seconds",
    "Until when a version's online features know of events, of 1970; 0: there are none",
    ("version",),
)
ONLINE_REQUESTS = Counter(
    "afterclick_online_requests",
    "Requests by who gave them a part: the caller, the store, or both",
    ("version", "part", "source"),
)
UNKNOWN_USERS = Counter("afterclick_online_unknown_users", "Requests of users without stored actions", ("version",))
LOADED = Gauge("afterclick_version_loaded", "1 while a version is loaded", ("tier", "version"))
PROVIDER = Gauge(
    "afterclick_ranker_provider", "1 while a version's ranker runs on ONNX Runtime's provider", ("version", "provider")
)
PREDICTION = Summary("afterclick_prediction", "Mean prediction of an answered request", ("version", "objective"))
PREDICTION_SQUARES = Counter("afterclick_prediction_squares", "Squares of these", ("version", "objective"))
SHADOWED = Counter(
    "afterclick_shadow_requests", "Requests that a version scored beside the one that answered", ("version", "code")
)
SHADOW_PREDICTION = Summary(
    "afterclick_shadow_prediction", "Mean prediction of a request that was scored in shadow", ("version", "objective")
)
SHADOW_ANSWERED = Summary(
    "afterclick_shadow_answered_prediction", "What the version that answered predicted", ("version", "objective")
)
SHADOW_DIFFERENCE = Summary(
    "afterclick_shadow_difference", "Mean absolute difference of the two in a request", ("version", "objective")
)
EXPIRES_AT = Gauge(
    "afterclick_certificate_expires_timestamp_seconds", "When the certificates in use expire, of 1970", ("setting",)
)
CREDENTIALS_REFUSED = Gauge(
    "afterclick_credentials_refused", "1 while files cannot be used and those before them are", ("setting",)
)
CONTROL_REFUSED = Counter("afterclick_control_calls_refused", "Control calls without the token", ("tier",))
ROUTED = Gauge("afterclick_version_share", "Share of users that a version answers", ("version",))

_OF_VERSIONS = (
    *(REQUESTS, REQUEST_SECONDS, IN_FLIGHT, LOOK_UP_SECONDS, RANK_SECONDS, CANDIDATES, ROWS, UNKNOWN_IDS, LOADED),
    *(PROVIDER, PREDICTION, PREDICTION_SQUARES, ROUTED, ONLINE_UNTIL, ONLINE_REQUESTS, UNKNOWN_USERS),
    *(SHADOWED, SHADOW_PREDICTION, SHADOW_ANSWERED, SHADOW_DIFFERENCE),
)
_EXTRA = "afterclick"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _EXTRA, {}),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def forget_version(version: str) -> None:
    """Drop all series of a version from the metrics."""
    for metric in _OF_VERSIONS:
        metric.remove_by_labels({"version": version})


def log_as_json(level: int = logging.INFO) -> None:
    """Send all logs to stderr as JSON lines; libraries only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_EXTRA).setLevel(level)
    logging.captureWarnings(True)
    # KServe's way of answering, not ours to change.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")


def log_event(message: str, level: int = logging.INFO, **values: object) -> None:
    """Log one event with its values, such as the version."""
    logging.getLogger(_EXTRA).log(level, message, extra={_EXTRA: values})
