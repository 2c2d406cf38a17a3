from datetime import date

import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.records import write_record
from components.common.releases import Publication, days_withheld, read_pointer, read_publication
from components.publish.registry import publish_releases
from components.version.manifest import VersionManifest
from components.version.predictor import load_served
from components.version.version import Version
from tests.unit.export.served import blessing_of, export_of


def copy_export(exported, root):
    """A fresh store that holds only the exported version."""
    _, manifest, uri = exported
    store = Store(str(root))
    target = store.staged_version(manifest.checkpoint_digest)
    for name in storage.list_names(uri):
        storage.write_bytes(storage.join_uri(target, name), storage.read_bytes(storage.join_uri(uri, name)))
    return store, target


def test_publishing_moves_the_pointer_to_an_identical_copy(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    for _ in range(2):
        publication = publish_releases(
            store, blessing_of(deployment), export_of(blessing_of(deployment), [manifest.version_digest])
        )
    assert publication.production == manifest.version_digest
    assert not publication.promoted
    assert read_publication(store, "batch", deployment.scored_day) == publication
    predictor, pointer = load_served(store)
    assert Version.published(store, pointer.version).manifest == manifest and pointer.arm == "baseline"
    assert store.versions() == [manifest.version_digest]
    assert predictor.features == deployment.config.features


def test_experiment_leaves_production_alone(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    blessing = blessing_of(deployment, action="experiment")
    publish_releases(store, blessing, export_of(blessing, [manifest.version_digest]))
    assert read_pointer(store) is None
    assert read_pointer(store, "EXPERIMENT").version == manifest.version_digest


def test_only_what_is_blessed_is_published(exported, tmp_path):
    deployment, manifest, _ = exported
    store, target = copy_export(exported, tmp_path)
    digest = manifest.version_digest
    for blessing, digests in (
        (blessing_of(deployment).model_copy(update={"releases": ()}), [digest]),
        (blessing_of(deployment), []),
        (blessing_of(deployment), ["0" * 64]),
        (blessing_of(deployment, digest="0" * 64), [digest]),
    ):
        with pytest.raises(InputError):
            publish_releases(store, blessing, export_of(blessing, digests))
    storage.write_bytes(storage.join_uri(target, "tables.int4"), b"damaged")
    with pytest.raises(InputError, match=r"tables\.int4"):
        publish_releases(store, blessing_of(deployment), export_of(blessing_of(deployment), [digest]))
    assert read_pointer(store) is None and store.versions() == []


def test_pointer_moves_last(exported, tmp_path, monkeypatch):
    """Killed just before the pointer, a server still sees nothing; the same call again completes."""
    import components.publish.registry as registry

    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    written = []

    def die_at_the_pointer(uri, record):
        if uri.endswith("CURRENT"):
            raise KeyboardInterrupt
        written.append(uri)
        write_record(uri, record)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(registry, "write_record", die_at_the_pointer)
        publish_releases(store, blessing_of(deployment), export_of(blessing_of(deployment), [manifest.version_digest]))
    assert written and read_pointer(store) is None
    assert read_manifest(store.version(manifest.version_digest), VersionManifest) == manifest
    publish_releases(store, blessing_of(deployment), export_of(blessing_of(deployment), [manifest.version_digest]))
    assert read_pointer(store) is not None


def test_damaged_version_is_not_served(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    publish_releases(store, blessing_of(deployment), export_of(blessing_of(deployment), [manifest.version_digest]))
    uri = storage.join_uri(store.version(manifest.version_digest), "ranker.onnx")
    storage.write_bytes(uri, storage.read_bytes(uri)[:-1])
    with pytest.raises(InputError, match=r"ranker\.onnx"):
        load_served(store)


def test_nothing_published_is_said_so(tmp_path):
    with pytest.raises(InputError, match="nothing is published yet"):
        load_served(Store(str(tmp_path)))


def test_withheld_version_is_said_so_and_the_others_are_published(exported, tmp_path):
    """The day goes on: what is served stays, and repeated withholding is called out."""
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    blessing = blessing_of(deployment)
    publication = publish_releases(store, blessing, export_of(blessing, [""]))
    assert publication.versions == () and publication.withheld == ("first of baseline: INT4 changes too much",)
    assert read_pointer(store) is None and store.versions() == []
    other = blessing_of(deployment, action="experiment").releases[0]
    both = blessing.model_copy(update={"releases": (*blessing.releases, other)})
    publication = publish_releases(store, both, export_of(both, ["", manifest.version_digest]))
    assert [version.action for version in publication.versions] == ["experiment"] and len(publication.withheld) == 1
    assert read_pointer(store) is None and read_pointer(store, "EXPERIMENT").version == manifest.version_digest


def test_days_that_withhold_are_counted(tmp_path):
    store = Store(str(tmp_path))
    for day, withheld in ((1, ()), (2, ("a",)), (3, ("b",)), (4, ("c",)), (9, ())):
        publication = Publication(pipeline="daily", event_date=date(2026, 1, day), versions=(), withheld=withheld)
        write_record(store.publication("daily", publication.event_date), publication)
    assert [days_withheld(store, date(2026, 1, day)) for day in (1, 2, 4, 8, 9)] == [0, 1, 3, 3, 0]
