"""Files whose bytes changed after they had been written: whoever reads them says so, and nothing is made of them."""

from __future__ import annotations

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from components.common import manifests
from components.common.errors import InputError
from components.common.layout import Store
from components.features.examples import EVALUATION, TRAINING, example_files, read_examples
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.train.loader import open_stream
from data_validation.logs.validate import validate_logs


@pytest.fixture
def own(joined, tmp_path):
    """A copy of what was delivered and made of it."""
    for name in ("logs", "clean_logs", "examples"):
        shutil.copytree(Path(joined.store.root, name), tmp_path / name)
    return Store(str(tmp_path))


def flip(directory: str) -> Path:
    """Change one bit in the middle of a directory's first Parquet file."""
    path = sorted(Path(directory).glob("*.parquet"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def validate(store, joined):
    config, day = joined.config, joined.scored_day
    shutil.rmtree(store.clean_logs("impressions", day))
    validate_logs(store.root, config.dataset, config.validation, [day], day + timedelta(days=1))


def join(store, joined):
    config, day = joined.config, joined.batch_days[-1]
    later = day + timedelta(days=1)
    as_of = config.dataset.mature_on(day) + timedelta(days=1)
    join_days(store.root, JoinJob(config.dataset, config.features, config.join, day, day, as_of, later))


def train(store, joined):
    open_stream(store, TRAINING, joined.batch_days, joined.config.features, 1000)


READERS = {
    "validation": (lambda store, day: str(Path(store.root, "logs", "impressions", f"event_date={day}")), validate),
    "join": (lambda store, day: store.clean_logs("actions", day), join),
    "training": (lambda store, day: store.examples(TRAINING, day - timedelta(days=1)), train),
    "statistics": (
        lambda store, day: store.examples(TRAINING, day - timedelta(days=1)),
        lambda store, joined: example_files(store, TRAINING, joined.batch_days[-1]),
    ),
    "evaluation": (
        lambda store, day: store.examples(EVALUATION, day),
        lambda store, joined: read_examples(store, EVALUATION, joined.scored_day),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_flipped_bit_is_found_by_whoever_reads_the_file(joined, own, reader):
    where, read = READERS[reader]
    day: date = joined.scored_day
    if reader == "join":
        day = joined.batch_days[-1]
        shutil.rmtree(own.examples(TRAINING, day))
    path = flip(where(own, day))
    with pytest.raises(InputError, match="not the [0-9]+ bytes of the manifest; delete") as refused:
        read(own, joined)
    assert str(path) in str(refused.value)


def test_file_is_compared_once_until_it_changes(joined, own, monkeypatch):
    measured = []
    measure = manifests.storage.measure
    monkeypatch.setattr(manifests.storage, "measure", lambda *given: measured.append(given) or measure(*given))
    first = read_examples(own, EVALUATION, joined.scored_day)[0]
    once = len(measured)
    assert once and read_examples(own, EVALUATION, joined.scored_day)[0].equals(first) and len(measured) == once
    path = flip(own.examples(EVALUATION, joined.scored_day))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="bytes of the manifest"):
        read_examples(own, EVALUATION, joined.scored_day)
