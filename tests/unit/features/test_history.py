import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.features.history import EventIndex, age_of_last, count_within, latest_events

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30)


@given(pairs, pairs, st.integers(1, 10))
@settings(max_examples=300, deadline=None)
def test_history_agrees_with_brute_force(events, queries, window):
    keys, times = (np.array([e[i] for e in events], dtype=kind) for i, kind in ((0, np.uint64), (1, np.int64)))
    asked, when = (np.array([q[i] for q in queries], dtype=kind) for i, kind in ((0, np.uint64), (1, np.int64)))
    index = EventIndex(keys, times)
    before = [[t for k, t in events if k == key and t < at] for key, at in queries]
    assert count_within(index, asked, when, window).tolist() == [
        sum(t >= at - window for t in seen) for seen, (_, at) in zip(before, queries, strict=True)
    ]
    assert age_of_last(index, times, asked, when, 15).tolist() == [
        min(at - max(seen), 15) if seen else 15 for seen, (_, at) in zip(before, queries, strict=True)
    ]
    latest = latest_events(index, times, asked, when, limit=3, horizon=window)
    for number, (seen, (_, at)) in enumerate(zip(before, queries, strict=True)):
        chosen = latest.events[latest.offsets[number] : latest.offsets[number + 1]]
        ages = latest.ages[latest.offsets[number] : latest.offsets[number + 1]]
        expected = sorted((t for t in seen if t >= at - window), reverse=True)[:3]
        assert times[chosen].tolist() == expected
        assert (when[number] - ages).tolist() == expected


def test_no_events_at_all():
    index = EventIndex(np.zeros(0, np.uint64), np.zeros(0, np.int64))
    keys, times = np.array([1], np.uint64), np.array([5])
    assert count_within(index, keys, times, 3).tolist() == [0]
    assert index.last_before(keys, times).tolist() == [-1]
    assert age_of_last(index, np.zeros(0, np.int64), keys, times, 9).tolist() == [9]
