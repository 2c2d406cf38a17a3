import numpy as np
import pytest

from components.features.hashing import splitmix64
from components.join.sampling import kept_as_negative

HASHES = splitmix64(np.arange(200_000))


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
def test_share_kept_is_the_rate(rate):
    assert kept_as_negative(HASHES, rate, salt=1).mean() == pytest.approx(rate, abs=0.003)


def test_a_row_kept_at_one_rate_is_kept_at_every_higher_one():
    low, high = (kept_as_negative(HASHES, rate, salt=1) for rate in (0.1, 0.2))
    assert (high | ~low).all()


def test_salts_choose_independently():
    both = kept_as_negative(HASHES, 0.5, salt=1) & kept_as_negative(HASHES, 0.5, salt=2)
    assert both.mean() == pytest.approx(0.25, abs=0.005)
