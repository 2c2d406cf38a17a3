from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from components.common import storage
from data_validation.examples.statistics import compute_statistics
from data_validation.examples.statistics_page import statistics_page
from data_validation.run import main_examples


def described(shift, names):
    generator = np.random.default_rng(3)
    columns = {"price": generator.normal(shift, 1, 1000), "name": names, "recent": [[1, 2]] * 1000}
    return compute_statistics(pa.table(columns), "tested", frozenset({"recent"}))


def test_page_compares_two_data_sets():
    names = ["<b>"] * 700 + ["bb"] * 300
    page = statistics_page(described(0, names), "Today", described(1, ["bb"] * 1000), "yesterday")
    assert "&lt;b&gt;" in page and "<b>:" not in page
    assert "L∞ 0.700" in page and re.search(r"JS 0\.1\d\d", page)
    assert page.count("<polyline") == 3
    assert "default-src 'none'" in page and "src=" not in page and "href=" not in page


def test_last_day_s_page_lies_beside_the_reports(joined):
    days = (str(joined.batch_days[0]), str(joined.batch_days[1]))
    warnings, page = main_examples(joined.store.root, joined.config.write(joined.store), days, [])
    assert sorted(warnings) == list(days)
    written = storage.read_bytes(joined.store.report(f"statistics-{joined.batch_days[1]}")).decode()
    assert page == written and "item_id_click_rate" in page and "the day before" in page
