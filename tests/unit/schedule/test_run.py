from datetime import date

import pytest

from components.common import storage
from components.common.arms import ArmList
from components.common.errors import InputError
from components.common.layout import Store
from components.schedule.config import ScheduleConfig
from components.schedule.run import pick_batch, pick_day
from tests.unit.join.logs import DATASET

ARMS = ArmList("baseline", {"baseline": 1, "sparse_optimizer": 1})
SCHEDULE = ScheduleConfig(first_day=date(2026, 3, 1), num_batch_days=3)


@pytest.fixture()
def store(tmp_path):
    return Store(str(tmp_path))


def close(store, pipeline, day):
    storage.write_bytes(store.finished_run(pipeline, date(2026, 3, day)), b"{}")


def test_batch_is_scored_on_the_day_after_it(store):
    chosen = pick_batch(store, DATASET, SCHEDULE, date(2026, 3, 9))
    assert chosen.due
    assert (chosen.first_day.day, chosen.trained_through.day, chosen.event_date.day) == (1, 3, 4)
    close(store, "batch", 4)
    assert not pick_batch(store, DATASET, SCHEDULE, date(2026, 3, 9)).due


def test_immature_batch_says_when(store):
    with pytest.raises(InputError, match="final after 2026-03-08"):
        pick_batch(store, DATASET, SCHEDULE, date(2026, 3, 8))


def test_daily_training_is_idle_before_the_batch(store, capsys):
    """A schedule may be there before the first batch run is finished."""
    assert not pick_day(store, DATASET, SCHEDULE, date(2026, 4, 1), ARMS).due
    assert "no batch run is finished yet; run batch_training" in capsys.readouterr().out


def test_days_are_taken_in_order_and_missed_ones_are_caught_up(store):
    close(store, "batch", 4)
    late = date(2026, 4, 1)
    taken = []
    for _ in range(4):
        chosen = pick_day(store, DATASET, SCHEDULE, late, ARMS)
        assert chosen.due
        assert chosen.trained_through.day == chosen.event_date.day - 1
        assert pick_day(store, DATASET, SCHEDULE, late, ARMS) == chosen, "an unfinished day is taken again"
        taken.append(chosen.event_date.day)
        close(store, "daily", chosen.event_date.day)
    assert taken == [4, 5, 6, 7]


@pytest.mark.parametrize(("as_of", "due"), [(date(2026, 3, 8), False), (date(2026, 3, 9), True)])
def test_day_is_due_when_its_labels_are_final(store, as_of, due):
    close(store, "batch", 4)
    assert DATASET.maturity_days == 4
    assert pick_day(store, DATASET, SCHEDULE, as_of, ARMS).due is due


@pytest.mark.parametrize(("batch_days", "last", "scored"), [(1, 2, 3), (2, 3, 6), (3, 6, 7)])
def test_closed_days_are_skipped(store, batch_days, last, scored):
    dataset = DATASET.model_copy(update={"closed_days": tuple(date(2026, 3, day) for day in (1, 4, 5))})
    schedule = ScheduleConfig(first_day=date(2026, 3, 1), num_batch_days=batch_days)
    chosen = pick_batch(store, dataset, schedule, date(2026, 4, 1))
    assert (chosen.trained_through.day, chosen.event_date.day) == (last, scored)
    close(store, "batch", 3)
    close(store, "daily", 3)
    following = pick_day(store, dataset, schedule, date(2026, 4, 1), ARMS)
    assert (following.trained_through.day, following.event_date.day) == (3, 6)


def test_training_is_ahead_of_scoring_when_immature_days_are_trained_on(store):
    """Labels are final four days later here: three of click-through after one of click."""
    schedule = SCHEDULE.model_copy(update={"train_immature": True})
    close(store, "batch", 4)
    first = pick_day(store, DATASET, schedule, date(2026, 4, 1), ARMS)
    assert (first.trained_through.day, first.event_date.day) == (3, 4)
    assert [day.day for day in first.train_days] == [4, 5, 6, 7, 8] and first.early_days == first.train_days
    # Killed when one arm had trained on all of them and the other on two.
    for arm, days in (("baseline", [3, 4, 5, 6, 7, 8]), ("sparse_optimizer", [3, 4, 5])):
        for day in days:
            storage.write_bytes(storage.join_uri(store.checkpoint(arm, date(2026, 3, day)), "manifest.json"), b"{}")
    assert [day.day for day in pick_day(store, DATASET, schedule, date(2026, 4, 1), ARMS).train_days] == [6, 7, 8]
    for day in (6, 7, 8):
        storage.write_bytes(
            storage.join_uri(store.checkpoint("sparse_optimizer", date(2026, 3, day)), "manifest.json"), b"{}"
        )
    close(store, "daily", 4)
    following = pick_day(store, DATASET, schedule, date(2026, 4, 1), ARMS)
    assert (following.trained_through.day, following.event_date.day) == (4, 5)
    assert [day.day for day in following.train_days] == [9]
    assert not pick_day(store, DATASET, schedule, date(2026, 3, 9), ARMS).due


def test_immature_days_are_caught_up_with_when_switched_on_later(store):
    """Models that were trained through the last finished day only go on from there."""
    close(store, "batch", 4)
    close(store, "daily", 4)
    for arm in ("baseline", "sparse_optimizer"):
        storage.write_bytes(storage.join_uri(store.checkpoint(arm, date(2026, 3, 4)), "manifest.json"), b"{}")
    chosen = pick_day(store, DATASET, SCHEDULE.model_copy(update={"train_immature": True}), date(2026, 4, 1), ARMS)
    assert [day.day for day in chosen.train_days] == [5, 6, 7, 8, 9]
