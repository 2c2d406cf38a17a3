"""How high what is true ranks: Hit@K among sampled candidates, and filtered ranks among all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.engagement.vocabulary import Known

_ROWS_AT_ONCE = 1024
_HEADS_AT_ONCE, _ENTITIES_AT_ONCE = 256, 65_536
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
        engaged = np.unique(pair_keys(users, own))
        for turn in range(2 * _ROUNDS):
            wrong = np.isin(pair_keys(users[:, None], others), engaged)
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
    score: Callable[[np.ndarray, np.ndarray], Tensor],
    heads: np.ndarray,
    tails: np.ndarray,
    true: tuple[np.ndarray, np.ndarray],
    among: np.ndarray,
) -> np.ndarray:
    """Ranks of tails among all entities, other true tails of the same head left out; float64, shape (n,).

    In blocks of heads and entities: no matrix of all edges and entities, or of some edges and all entities, is made. A
    tie counts as half above.

    Args:
        score: Of heads (b,), of entities (m,), shape (b, m).
        heads: int64, shape (n,).
        tails: int64, shape (n,).
        true: Heads and tails of everything that is true of this relation, int64, shape (m,) each.
        among: The entities that a tail is ranked among, sorted, int64, shape (k,).
    """
    order = np.argsort(true[0], kind="stable")
    true_heads, places_by_head = true[0][order], np.searchsorted(among, true[1][order])
    starts, stops = (np.searchsorted(true_heads, heads, side=side) for side in ("left", "right"))
    ranks = np.ones(len(heads))
    for start in range(0, len(heads), _HEADS_AT_ONCE):
        part = slice(start, start + _HEADS_AT_ONCE)
        asked, lengths = heads[part], stops[part] - starts[part]
        own = score(asked, tails[part]).diagonal()[:, None]
        # What does not count: of each head its own tail, and the other true ones.
        rows = np.concatenate([np.arange(len(asked)), np.repeat(np.arange(len(asked)), lengths)])
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.concatenate(
            [np.searchsorted(among, tails[part]), places_by_head[np.repeat(starts[part], lengths) + within]]
        )
        for first in range(0, len(among), _ENTITIES_AT_ONCE):
            found = score(asked, among[first : first + _ENTITIES_AT_ONCE])
            here = (places >= first) & (places < first + found.shape[1])
            found[torch.from_numpy(rows[here]), torch.from_numpy(places[here] - first)] = float("-inf")
            above = (found > own).sum(1) + 0.5 * (found == own).sum(1)
            ranks[part] += above.cpu().numpy()
    return ranks


def _ranks(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    return 1.0 + (others > own[:, None]).sum(1) + 0.5 * (others == own[:, None]).sum(1)


def pair_keys(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """One key of each pair of ids, which are below 2^31."""
    return sources * np.int64(2**31) + targets
