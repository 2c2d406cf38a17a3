"""The registry: immutable versions, and a pointer per channel that moves last."""

from __future__ import annotations

from datetime import date

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import find_manifest, verify_files
from components.common.records import write_record
from components.common.releases import (
    Blessing,
    Export,
    Pointer,
    Publication,
    PublishedVersion,
    Release,
    read_pointer,
)
from components.version.manifest import VersionManifest
from components.version.version import Version


def publish_releases(store: Store, blessing: Blessing, export: Export) -> Publication:
    """Copy the exported versions of a blessing's releases into the registry, then move their channels' pointers.

    Args:
        store: Where everything lies.
        blessing: The verdict.
        export: What became of each release, in order; those that are withheld are left out.

    Raises:
        InputError: If a version was not made from the checkpoint that the blessing releases, or a file of it is not
            what its manifest says.
    """
    exported = export.versions
    if len(exported) != len(blessing.releases) or not exported:
        raise InputError(
            f"the blessing of {blessing.event_date} releases {len(blessing.releases)} checkpoints, {len(exported)} "
            "versions were exported; only what is released is published"
        )
    pairs = list(zip(blessing.releases, exported, strict=True))
    passed = [(release, one.version) for release, one in pairs if not one.withheld]
    for release, digest in passed:
        _copy_version(store, release, digest)
    publication = Publication(
        pipeline=blessing.pipeline,
        event_date=blessing.event_date,
        versions=tuple(
            PublishedVersion(action=release.action, channel=release.channel, arm=release.arm, version=digest)
            for release, digest in passed
        ),
        withheld=tuple(f"{release.action} of {release.arm}: {one.withheld}" for release, one in pairs if one.withheld),
    )
    write_record(store.publication(blessing.pipeline, blessing.event_date), publication)
    for release, digest in passed:
        write_record(store.pointer(release.channel), _pointer(store, release, digest, blessing.event_date))
    return publication


def _pointer(store: Store, release: Release, digest: str, event_date: date) -> Pointer:
    """Where a channel points from now on; since when its arm is there is carried on while it stays the same."""
    before = read_pointer(store, release.channel)
    if before is not None and before.arm == release.arm:
        arm_since, replaced = before.arm_since, before.replaced
    else:
        arm_since = date.min if release.action == "first" else event_date
        replaced = before.arm if before is not None and release.action == "promote" else ""
    return Pointer(
        version=digest,
        arm=release.arm,
        checkpoint_digest=release.checkpoint_digest,
        trained_through=release.trained_through,
        published_on=event_date,
        arm_since=arm_since,
        replaced=replaced,
    )


def _copy_version(store: Store, release: Release, digest: str) -> None:
    exported = Version.open(store.staged_version(release.checkpoint_digest))
    if exported.manifest.checkpoint_digest != release.checkpoint_digest or exported.digest != digest:
        raise InputError(
            f"{exported.uri}: holds version {exported.digest[:12]} of checkpoint "
            f"{exported.manifest.checkpoint_digest[:12]}, but version {digest[:12]} of the released "
            f"{release.checkpoint_digest[:12]} is to be published; export it again"
        )
    verify_files(exported.uri, exported.manifest)
    uri = store.version(digest)
    if find_manifest(uri, VersionManifest) is None:
        with storage.new_directory(uri) as folder:
            for name in [*(entry.name for entry in exported.manifest.files), storage.MANIFEST_NAME]:
                storage.copy(storage.join_uri(exported.uri, name), storage.join_uri(folder, name))
            verify_files(folder, exported.manifest)
    verify_files(uri, exported.manifest)
