"""Drawing rows."""

from __future__ import annotations

import torch

from components.tables.embeddings import redraw_rows


def test_redraw_is_the_same_in_parts():
    whole, rows = torch.zeros(140_000, 2), torch.arange(140_000) % 3 > 0
    redraw_rows(whole, rows, 0, 0.1, (3, 1))
    parts = torch.zeros(140_000, 2)
    for part in (slice(0, 65_000), slice(65_000, 65_001), slice(65_001, 140_000)):
        redraw_rows(parts[part], rows[part], part.start, 0.1, (3, 1))
    assert torch.equal(parts, whole) and not whole[~rows].any()
    assert 0.099 < whole[rows].std() < 0.101 and len(whole[rows].unique(dim=0)) == rows.sum()
