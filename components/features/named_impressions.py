"""Which impression an onsite action names, where ids may be used again: by other users, or later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.hashing import combine_hashes, hash_identifiers, is_in
from components.features.history import EventIndex
from components.features.log_events import Events

NO_ROW = -1


@dataclass(frozen=True)
class NamedImpressions:
    """What n actions name.

    Attributes:
        rows: The row of the last impression with the action's id and user that was shown at the action's moment or
            before it, or `NO_ROW`; int64, shape (n,).
        used: Whether any impression has the id, bool, shape (n,).
        used_by_user: Whether any impression has the id and the user, bool, shape (n,).
    """

    rows: np.ndarray
    used: np.ndarray
    used_by_user: np.ndarray

    @classmethod
    def of(cls, actions: Events, impressions: Events) -> NamedImpressions:
        """Look up the actions' impressions; compares the identifiers themselves, not their hashes."""
        rows = np.full(len(actions), NO_ROW)
        used, used_by_user = np.zeros(len(actions), dtype=bool), np.zeros(len(actions), dtype=bool)
        naming = np.flatnonzero(actions.known("impression_id"))
        if not len(naming) or not len(impressions):
            return cls(rows, used, used_by_user)
        wanted = actions.table["impression_id"].take(pa.array(naming)).combine_chunks().dictionary_encode()
        # Of the many that were shown only those are compared whose hash is that of one that is named.
        near = np.flatnonzero(is_in(impressions.hashed("impression_id"), hash_identifiers(wanted.dictionary)))
        shown = pc.index_in(impressions.table["impression_id"].take(pa.array(near)), value_set=wanted.dictionary)
        is_named = shown.is_valid().to_numpy()
        known, codes = near[is_named], shown.drop_null().to_numpy().astype(np.uint64)
        asked = wanted.indices.to_numpy().astype(np.uint64)
        index = EventIndex(combine_hashes(impressions.users[known], codes), impressions.times[known])
        keys = combine_hashes(actions.users[naming], asked)
        last = index.last_before(keys, actions.times[naming] + 1)
        rows[naming[last >= 0]] = known[last[last >= 0]]
        used[naming] = np.isin(asked, codes)
        used_by_user[naming] = np.isin(keys, index.keys)
        return cls(rows, used, used_by_user)
