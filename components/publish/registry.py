"""The registry: immutable versions, and a pointer per channel that moves last."""

from __future__ import annotations

from datetime import date

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import CANDIDATE
from components.common.manifests import Manifest, find_manifest, verify_files
from components.common.release import (
    EXPERIMENT_CHANNEL,
    PRODUCTION_CHANNEL,
    Blessing,
    Pointer,
    Publication,
    write_record,
)
from components.common.servable import VERSION_KIND


def publish_version(
    store: Store, blessing: Blessing, digest: str, exported: Manifest, exported_uri: str
) -> Publication:
    """Copy an exported version into the registry, then move the channel's pointer.

    Raises:
        InputError: If the blessing does not name the version's checkpoint, or a file is not what the manifest says.
    """
    if blessing.action == "none" or blessing.checkpoint_digest != exported.inputs.get("checkpoint"):
        raise InputError(
            f"{exported_uri}: made from checkpoint {exported.inputs.get('checkpoint', '')[:12]}, but the blessing of "
            f"{blessing.event_date} is for {blessing.checkpoint_digest[:12] or 'none'}; only that one "
            "may be published"
        )
    assert blessing.trained_through is not None
    verify_files(exported_uri, exported)
    uri = store.version(digest)
    if find_manifest(uri, VERSION_KIND) is None:
        with storage.staged_directory(uri) as staged:
            for name in [*(entry.name for entry in exported.files), storage.MANIFEST_NAME]:
                storage.write_bytes(
                    storage.join_uri(staged, name), storage.read_bytes(storage.join_uri(exported_uri, name))
                )
            verify_files(staged, exported)
    verify_files(uri, exported)
    channel = EXPERIMENT_CHANNEL if blessing.action == "experiment" else PRODUCTION_CHANNEL
    publication = Publication(
        event_date=blessing.event_date,
        channel=channel,
        action=blessing.action,
        version=digest,
        promoted=blessing.action == "promote" and blessing.arm == CANDIDATE,
    )
    write_record(store.publication(blessing.pipeline, blessing.event_date), publication)
    write_record(store.pointer(channel), _pointer(blessing, digest, blessing.trained_through))
    return publication


def _pointer(blessing: Blessing, digest: str, trained_through: date) -> Pointer:
    return Pointer(
        version=digest,
        arm=blessing.arm,
        checkpoint_digest=blessing.checkpoint_digest,
        trained_through=trained_through,
        published_on=blessing.event_date,
    )
