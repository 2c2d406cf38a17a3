"""The six objectives (Qiu et al. 2025, table 2) and which rows each is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Objective:
    """One head of the model.

    Attributes:
        name: The objective.
        label: The example column that is positive where it is above zero.
        rows: Which impressions take part: all, the clicked ones, or those not clicked.
        served: Whether the published ranker is judged by it.
    """

    name: str
    label: str
    rows: Literal["all", "clicked", "not_clicked"]
    served: bool = False


OBJECTIVES = (
    Objective("click", "clicked", "all"),
    Objective("good_click", "good_clicked", "all"),
    Objective("add_to_cart_given_click", "add_to_carts", "clicked"),
    Objective("checkout_given_click", "checkouts", "clicked", served=True),
    Objective("add_to_cart_given_view", "add_to_carts", "not_clicked"),
    Objective("checkout_given_view", "checkouts", "not_clicked", served=True),
)
OBJECTIVE_NAMES = tuple(objective.name for objective in OBJECTIVES)
SERVED_OBJECTIVES = tuple(objective.name for objective in OBJECTIVES if objective.served)


def negative_rate(objective: Objective, negative_keep_rate: float) -> float:
    """The share of an objective's negatives that training sees.

    A clicked row is always kept, so objectives over clicked rows see all their negatives.
    """
    return 1.0 if objective.rows == "clicked" else negative_keep_rate
