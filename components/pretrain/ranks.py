"""How high what is true ranks: Hit@K among sampled candidates, and filtered ranks among all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.engagement.vocabulary import Known

_ROWS_AT_ONCE = 1024
_ROUNDS = 8


@dataclass(frozen=True)
class Candidates:
    """Held-out pairs, each with items that it is ranked among.

    Attributes:
        users: int64, shape (n,).
        items: What each engaged with, int64, shape (n,).
        others: Items that it did not engage with on that day, int64, shape (n, c).
    """

    users: np.ndarray
    items: np.ndarray
    others: np.ndarray

    @classmethod
    def draw(
        cls,
        pairs: tuple[np.ndarray, np.ndarray],
        known: Known,
        by_degree: bool,
        num_candidates: int,
        seed: int,
    ) -> Candidates:
        """Draw others uniformly, or by degree; those that the user engaged with are drawn again.

        After some rounds that is done uniformly; of a user who engaged with nearly everything, some may remain.

        Args:
            pairs: Users and items, distinct, int64, shape (n,) each.
            known: Items to draw from.
            by_degree: Whether in proportion to their degrees.
            num_candidates: c.
            seed: Of the draw.
        """
        users, own = pairs
        generator = np.random.default_rng(seed)
        others = known.draw(generator, len(users) * num_candidates, by_degree).reshape(len(users), num_candidates)
        engaged = np.unique(_keys(users, own))
        for turn in range(2 * _ROUNDS):
            wrong = np.isin(_keys(users[:, None], others), engaged)
            if not wrong.any():
                break
            others[wrong] = known.draw(generator, int(wrong.sum()), by_degree and turn < _ROUNDS)
        return cls(users, own, others)

    def hit_rate(self, score: Callable[[np.ndarray, np.ndarray], np.ndarray], k: int = 3) -> float:
        """Share of pairs whose item is among the first k; a tie counts as half above.

        rank = 1 + #(higher) + #(equal) / 2, and a hit is a rank of at most k.

        Args:
            score: Of users (n,) and items (n, m), shape (n, m).
            k: How many count.
        """
        hits, total = 0, len(self.users)
        for start in range(0, total, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            found = score(self.users[part], np.concatenate([self.items[part, None], self.others[part]], axis=1))
            hits += int((_ranks(found[:, 0], found[:, 1:]) <= k).sum())
        return hits / total if total else float("nan")


def filtered_ranks(
    score: Callable[[np.ndarray], Tensor], heads: np.ndarray, tails: np.ndarray, known: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Ranks of tails among all entities, other true tails of the same head left out; float64, shape (n,).

    Some heads at a time, so that no matrix of all edges and entities is made. A tie counts as half above.

    Args:
        score: Of heads (b,), of every entity, shape (b, entities).
        heads: int64, shape (n,).
        tails: int64, shape (n,).
        known: Heads and tails of everything that is true of this relation, int64, shape (m,) each.
    """
    order = np.argsort(known[0], kind="stable")
    known_heads, known_tails = known[0][order], known[1][order]
    starts, stops = (np.searchsorted(known_heads, heads, side=side) for side in ("left", "right"))
    ranks = np.empty(len(heads))
    for start in range(0, len(heads), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        found = score(heads[part])
        own = found.gather(1, torch.from_numpy(tails[part])[:, None]).squeeze(1).clone()
        lengths = stops[part] - starts[part]
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = (
            np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts[part], lengths)
        )
        found[torch.from_numpy(rows), torch.from_numpy(known_tails[places])] = float("-inf")
        found[torch.arange(len(own)), torch.from_numpy(tails[part])] = float("-inf")
        ranks[part] = _ranks(own.numpy(), found.numpy())
    return ranks


def _ranks(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    return 1.0 + (others > own[:, None]).sum(1) + 0.5 * (others == own[:, None]).sum(1)


def _keys(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """One key of each pair; ids are below 2^31."""
    return users * np.int64(2**31) + items
