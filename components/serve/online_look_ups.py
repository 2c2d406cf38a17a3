"""Online features of the versions that a server holds: the newest that fit each, and what goes over the wire."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import numpy as np

from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions, action_entities
from components.features.online_features import (
    KnownOnline,
    OnlineFeatures,
    OnlineManifest,
    engagement_names,
    online_digest,
)
from components.serve.observability import ONLINE_REQUESTS, ONLINE_UNTIL, UNKNOWN_USERS, log_event
from components.version.request import RawRequest
from components.version.wire_names import ACTION_PREFIX

# Beside the entities, an input: whose actions.
USER = "user_hash"
_TIME, _TYPE, _ACTION = (ACTION_PREFIX + name for name in ("timestamp", "action_type", "action_id"))


class OnlineLookUps:
    """The newest online features that fit each version; none where they are not asked for."""

    def __init__(self, store: Store, asked_for: bool) -> None:
        """Take them from a store."""
        self._store, self._asked_for = store, asked_for
        self._features: dict[str, FeatureConfig] = {}
        self._held: dict[str, OnlineFeatures] = {}
        self._changing = threading.Lock()

    def hold(self, version: str, features: FeatureConfig) -> None:
        """Map what fits a version, from now on."""
        if not self._asked_for:
            return
        with self._changing:
            self._features = {**self._features, version: features}
            self._take_up()
        if version not in self._held:
            log_event("no online features", logging.WARNING, version=version, settings=online_digest(features))

    def keep(self, versions: tuple[str, ...]) -> None:
        """Let those of other versions go."""
        with self._changing:
            for version in self._features.keys() - {*versions}:
                ONLINE_UNTIL.remove(version)
            self._features = {version: own for version, own in self._features.items() if version in versions}
            self._held = {version: own for version, own in self._held.items() if version in versions}

    def refresh(self) -> None:
        """Take up newer ones."""
        with self._changing:
            self._take_up()

    def keep_fresh(self, seconds: float) -> None:
        """Look for newer ones from now on, in a thread of its own."""

        def refresh() -> None:
            while True:
                time.sleep(seconds)
                try:
                    self.refresh()
                except Exception:
                    # Without this thread they would grow old.
                    logging.getLogger(__name__).exception("online features not looked for")

        if self._asked_for:
            threading.Thread(target=refresh, name="online-features", daemon=True).start()

    def look_up(self, version: str, user: int, entities: Mapping[str, np.ndarray]) -> KnownOnline | None:
        """As `OnlineFeatures` does; None if none fit the version."""
        held = self._held.get(version)
        return None if held is None else held.look_up(user, entities)

    def _take_up(self) -> None:
        newest: dict[str, OnlineFeatures | None] = {}
        for version, features in self._features.items():
            settings = online_digest(features)
            if settings not in newest:
                held = (own for own in self._held.values() if online_digest(own.features) == settings)
                newest[settings] = self._newest(features, settings, next(held, None))
            found = newest[settings]
            if found is not None:
                self._held = {**self._held, version: found}
            ONLINE_UNTIL.labels(version).set(0 if found is None else found.until_seconds)

    def _newest(self, features: FeatureConfig, settings: str, held: OnlineFeatures | None) -> OnlineFeatures | None:
        """The newest that can be read, or those that are held."""
        for day in sorted(self._store.online_days(settings), reverse=True):
            uri = self._store.online_features(settings, day)
            try:
                if held is not None and (
                    day < held.day
                    or (day == held.day and read_manifest(uri, OnlineManifest).content_digest == held.digest)
                ):
                    break
                taken = OnlineFeatures.open(self._store, features, day)
            except (InputError, OSError) as error:
                log_event("online features refused", logging.ERROR, reason=str(error))
                continue
            log_event("online features taken up", through=str(day), digest=taken.digest, users=len(taken.users))
            return taken
        return held


def count_sources(version: str, request: RawRequest, known: KnownOnline | None, lacks_engagement: bool) -> None:
    """Count who gives a request its actions and its engagement: the caller, the store, or both."""
    sent, stored = len(request.actions) > 0, known is not None and len(known.actions) > 0
    if known is not None and not stored:
        UNKNOWN_USERS.labels(version).inc()
    sources = {(True, False): "sent", (False, True): "stored", (True, True): "both", (False, False): "none"}
    ONLINE_REQUESTS.labels(version, "actions", sources[sent, stored]).inc()
    from_store = lacks_engagement and known is not None
    ONLINE_REQUESTS.labels(version, "engagement", sources[bool(request.given), from_store]).inc()


def tensors_of_known(known: KnownOnline) -> dict[str, np.ndarray]:
    """What is known for a request, named as the request's own tensors; identifiers as hashes."""
    actions = known.actions
    hashes = {_ACTION: actions.identifiers}
    hashes |= {ACTION_PREFIX + name: values for name, values in actions.entities.items()}
    return {
        _TIME: actions.times,
        _TYPE: actions.codes.view(np.uint8),
        **{name: values.view(np.int64) for name, values in hashes.items()},
        **known.engagement,
    }


def known_in(
    tensors: Mapping[str, np.ndarray], features: FeatureConfig, user: int, entities: Mapping[str, np.ndarray]
) -> KnownOnline | None:
    """What tensors say is known for a request; None if they say nothing.

    Raises:
        InputError: If they are not what was asked for.
    """
    if not tensors:
        return None
    size, of = len(tensors.get(_TIME, ())), {ACTION_PREFIX + name: name for name in action_entities(features)}
    expected: dict[str, tuple[type, tuple[int, ...]]] = {_TYPE: (np.uint8, (size,))}
    expected |= dict.fromkeys((_TIME, _ACTION, *of), (np.int64, (size,)))
    for entity, asked in entities.items():
        expected |= dict.fromkeys(engagement_names(entity), (np.float32, asked.shape))
    found = {name: (values.dtype, values.shape) for name, values in tensors.items()}
    if found != expected:
        raise InputError(f"tensors {found}, expected {expected}")
    actions = HashedActions(
        np.full(size, user, dtype=np.uint64),
        tensors[_TIME],
        tensors[_TYPE].view(np.int8),
        tensors[_ACTION].view(np.uint64),
        {name: tensors[wire].view(np.uint64) for wire, name in of.items()},
    )
    return KnownOnline(actions, {name: tensors[name] for entity in entities for name in engagement_names(entity)})
