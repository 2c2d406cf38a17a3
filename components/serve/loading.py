"""Loading the versions that a deployment's record names, and letting go of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container

from components.common.deployments import Deployment
from components.common.errors import InputError
from components.serve.observability import LOADED, forget_version, log_event

# Of those that went: who reads metrics every few minutes still finds what the last ones did.
_VERSIONS_KEPT = 2


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


class UnloadedVersions:
    """What a tier let go; all but the last few leave its metrics, or each release would lengthen them."""

    def __init__(self, tier: str) -> None:
        """Begin with none."""
        self._tier, self._digests = tier, list[str]()

    def add(self, digest: str, loaded: Container[str]) -> None:
        """Note a version that went; those that are loaded again by now did not go."""
        LOADED.labels(self._tier, digest).set(0)
        self._digests = [one for one in self._digests if one != digest and one not in loaded] + [digest]
        for forgotten in self._digests[:-_VERSIONS_KEPT]:
            forget_version(forgotten)
        self._digests = self._digests[-_VERSIONS_KEPT:]
