"""Options of Beam runners, and a look at what they name before a pipeline is handed to it."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import shlex
import socket
import sys
import urllib.request
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from components.common.errors import InputError

LOCAL_RUNNER = ("--runner=FnApiRunner",)
# DirectRunner tries to download another runner first; Beam takes names in any case.
_ANSWER_SECONDS = 5.0
_THIS_HOST = ("localhost", "127.0.0.1", "::1", "[::1]")
_WRONG_RUNNERS = ("dask", "bundlebaseddirect", "directrunner", "switchingdirect")


def _check_options(options: tuple[str, ...]) -> tuple[str, ...]:
    given = " ".join(options).lower()
    if "multi_threading" in given:
        raise ValueError("Beam's multi_threading mode loses rows; use multi_processing")
    for name in _WRONG_RUNNERS:
        if f"runner={name}" in given or f"runner {name}" in given:
            raise ValueError(
                f"the Beam runner {name} loses rows or gives wrong results; use FnApiRunner or a cluster's"
            )
    if options != LOCAL_RUNNER:
        _check_known(options)
    if not any(option.startswith("--runner=") for option in options):
        raise ValueError("name a runner, e.g. --runner=FnApiRunner")
    return options


def _check_known(options: tuple[str, ...]) -> None:
    """Check the options' names, since Beam warns of those that it does not know, and goes on without them.

    A cluster's job server may know more of them than Beam for Python does: there only what resembles a known one is
    refused.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(list(options))
            known, given = set(parsed.get_all_options()), set(parsed.get_all_options(retain_unknown_options=True))
    except SystemExit as error:
        reason = said.getvalue().strip().splitlines()[-1]
        raise ValueError(f"Beam does not take {list(options)}: {reason}") from error
    is_local = LOCAL_RUNNER[0] in options
    for name in sorted(given - known):
        alike = difflib.get_close_matches(name, known, n=1, cutoff=0.0 if is_local else 0.85)
        if alike:
            raise ValueError(f"Beam has no option --{name}, but --{alike[0]}; correct it, or take it out")


def open_pipeline(options: Sequence[str]) -> Any:
    """A `beam.Pipeline` with these options, once whatever it will talk to has been seen to answer.

    Beam itself waits for five minutes for a job server that is not there, and then says nothing.

    Raises:
        InputError: If a job server or worker pool does not answer, or is of a version that Beam has no runner for.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions(list(options))
    given = parsed.get_all_options(retain_unknown_options=True)
    job_server, master = given.get("job_endpoint"), given.get("flink_master") or "[auto]"
    # `embed` is a job server in this process.
    if job_server and job_server != "embed":
        _check_answers("job_endpoint", job_server)
    elif "flink" in str(given.get("runner")).lower() and not master.startswith("["):
        _check_answers("flink_master", master)
        _check_flink(master)
    workers = given.get("environment_config") or ""
    is_far = any(_host(place) not in _THIS_HOST for place in (job_server or "", master) if ":" in place)
    # Beside a far task manager, localhost is not this host.
    if given.get("environment_type") == "EXTERNAL" and not (is_far and _host(workers) in _THIS_HOST):
        _check_answers("environment_config", workers)
    if LOCAL_RUNNER[0] in options and given.get("direct_running_mode") == "multi_processing":
        return beam.Pipeline(_in_processes(parsed), parsed)
    return beam.Pipeline(options=parsed)


def _in_processes(options: Any) -> Any:
    """Beam's own runner on several processes, with workers that start and end sooner than its own."""
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    # Else it would start its own.
    options.view_as(DirectOptions).direct_running_mode = None
    command = f"{shlex.quote(sys.executable)} -m components.common.beam_worker"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _host(place: str) -> str:
    return place.partition("://")[2].rpartition(":")[0] or place.rpartition(":")[0]


def _check_answers(option: str, place: str) -> None:
    host, _, port = place.partition("://")[2].rpartition(":") if "://" in place else place.rpartition(":")
    try:
        with socket.create_connection((host, int(port.rstrip("/"))), timeout=_ANSWER_SECONDS):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"beam_options: --{option}={place} does not answer ({reason}): start it, or correct the address"
        ) from error


def _check_flink(master: str) -> None:
    """Ask a Flink master's REST interface for its version."""
    address = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/config", timeout=_ANSWER_SECONDS) as answer:
            version = str(json.load(answer)["flink-version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"beam_options: --flink_master={master} answers, but not as Flink's REST interface does ({error}); "
            "its port is 8081 unless rest.port says otherwise"
        ) from error
    if not version.startswith("1."):
        raise InputError(
            f"beam_options: --flink_master={master} is Flink {version}; Beam {metadata.version('apache-beam')} has job "
            "servers for Flink 1.x only: take a FlinkDeployment with flinkVersion v1_20"
        )


BeamOptions = Annotated[
    tuple[str, ...],
    Field(description="options of any Beam runner; those that were seen to lose rows are refused"),
    AfterValidator(_check_options),
]
