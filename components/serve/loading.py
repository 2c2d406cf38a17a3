"""Loading the versions that a deployment's record names."""

from __future__ import annotations

import logging
from collections.abc import Callable

from components.common.deployments import Deployment
from components.common.errors import InputError
from components.serve.observability import log_event


def load_named(deployment: Deployment, versions: tuple[str, ...], load: Callable[[str], None]) -> None:
    """Load versions before the first request; one that nobody is routed to may fail, and is logged.

    Raises:
        InputError: If one that users are routed to is absent or damaged.
    """
    for digest in versions:
        try:
            load(digest)
        except (InputError, OSError) as error:
            if digest in deployment.routes:
                raise
            log_event("version not loaded", logging.ERROR, version=digest, reason=str(error))
