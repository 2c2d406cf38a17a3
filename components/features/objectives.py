"""The six objectives (Qiu et al. 2025, table 2) and which rows each is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.common.config import Distinct


@dataclass(frozen=True)
class Objective:
    """One head of the model.

    Attributes:
        name: The objective.
        label: The example column that is positive where it is above zero.
        rows: Which impressions take part: all, the clicked ones, or those not clicked.
    """

    name: str
    label: str
    rows: Literal["all", "clicked", "not_clicked"]


OBJECTIVES = (
    Objective("click", "clicked", "all"),
    Objective("good_click", "good_clicked", "all"),
    Objective("add_to_cart_given_click", "add_to_carts", "clicked"),
    Objective("checkout_given_click", "checkouts", "clicked"),
    Objective("add_to_cart_given_view", "add_to_carts", "not_clicked"),
    Objective("checkout_given_view", "checkouts", "not_clicked"),
)
OBJECTIVE_NAMES = tuple(objective.name for objective in OBJECTIVES)
# What the published ranker answers and is judged by, unless configured otherwise (Qiu et al. 2025, section 4.4).
DEFAULT_SERVED = ("checkout_given_click", "checkout_given_view")


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in OBJECTIVE_NAMES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not an objective; one of {list(OBJECTIVE_NAMES)}")
    return names


ServedObjectives = Annotated[
    tuple[str, ...],
    Distinct,
    AfterValidator(_known),
    Field(min_length=1, description="objectives that are served and judged; set by the key `served` of the YAML"),
]


def negative_rate(objective: Objective, negative_keep_rate: float) -> float:
    """The share of an objective's negatives that training sees.

    A clicked row is always kept, so objectives over clicked rows see all their negatives.
    """
    return 1.0 if objective.rows == "clicked" else negative_keep_rate
