"""Deterministic negative down-sampling."""

from __future__ import annotations

import numpy as np

from components.features.hashing import splitmix64, uniform_from_hash


def kept_as_negative(impression_hashes: np.ndarray, keep_rate: float, salt: int) -> np.ndarray:
    """Whether the hash keeps an impression as a negative.

    The verdict depends only on the impression, so reruns agree, and a row kept at one rate is kept at every higher one.

    Args:
        impression_hashes: uint64, shape (n,).
        keep_rate: In (0, 1].
        salt: Chooses which rows are kept.

    Returns:
        bool, shape (n,).
    """
    return uniform_from_hash(splitmix64(impression_hashes ^ np.uint64(salt % 2**64))) < keep_rate
