"""The window that tables are pretrained on never reaches what will be scored."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import write_record
from components.common.runs import RunOutcome
from components.schedule.run import main_pick_window, pick_window


def test_before_the_batch_is_finished_it_ends_with_the_batch(joined, tmp_path):
    config, store = joined.config, Store(str(tmp_path))
    known_on = joined.scored_day + timedelta(days=30)
    assert pick_window(store, config.dataset, config.schedule, known_on) == joined.batch_days[-1]
    assert pick_window(store, config.dataset, config.schedule, joined.scored_day) == joined.batch_days[-1]
    with pytest.raises(InputError, match="the window ends with the batch"):
        pick_window(store, config.dataset, config.schedule, joined.batch_days[-1])


def test_after_it_the_window_ends_with_the_newest_clean_day_that_is_known(joined, tmp_path):
    (tmp_path / "clean_logs").symlink_to(f"{joined.store.root}/clean_logs")
    config, store = joined.config, Store(str(tmp_path))
    outcome = RunOutcome(event_date=joined.scored_day, blessed=False, published="", promoted=False, reasons=())
    write_record(store.finished_run("batch", joined.scored_day), outcome)
    newest = store.clean_days()[-1]
    assert newest > joined.scored_day
    assert pick_window(store, config.dataset, config.schedule, newest + timedelta(days=9)) == newest
    assert pick_window(store, config.dataset, config.schedule, newest) == newest - timedelta(days=1)


def test_a_configuration_without_the_section_is_told_where_to_read(joined, tmp_path):
    config_uri = joined.config.write(Store(str(tmp_path)))
    assert not ResolvedConfig.open(config_uri).values["pretrain"]
    with pytest.raises(InputError, match="docs/pretraining.md"):
        main_pick_window(str(tmp_path), config_uri, str(date(2026, 1, 20)))
