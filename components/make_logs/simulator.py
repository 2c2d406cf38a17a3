"""Simulated logs with known true probabilities, at any size.

Users and items have Zipf frequencies, latent factors and effects of their own; items belong to campaigns and campaigns
to advertisers, whose factors they inherit in part. Conversions come late, exponentially. A frequency cap keeps a user
from seeing a campaign again while a conversion could still be credited to the earlier impression, so attribution by
campaign returns exactly the impression that caused a conversion, and the true probabilities are those of the labels.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.errors import InputError
from components.features.events import TIMESTAMP, DatasetConfig
from components.features.hashing import splitmix64
from components.features.objectives import OBJECTIVE_NAMES
from components.sources.config import SimulatorSource

NUM_SURFACES = 6
_NUM_TAGS = 12
_INHERITED = 0.7
_OFFSETS = {"click": 0, "add_to_cart": 1, "checkout": 2}


def zipf_ranks(generator: np.random.Generator, size: int, num_values: int, exponent: float) -> np.ndarray:
    """Draw ranks 0..num_values-1 with probability proportional to (rank + 1) ** -exponent; int64, shape (size,)."""
    weights = np.arange(1, num_values + 1, dtype=np.float64) ** -exponent
    return np.searchsorted(np.cumsum(weights) / weights.sum(), generator.random(size)).clip(0, num_values - 1)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))


def _probabilities(score: np.ndarray, rate: float) -> np.ndarray:
    """Shift a score so that its sigmoid has the given mean (bisection to 1e-9)."""
    low, high = -30.0, 30.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(score + middle).mean() < rate else (low, middle)
    return _sigmoid(score + low)


class _World:
    """The latent factors and effects behind the behaviour; rows are ids."""

    def __init__(self, source: SimulatorSource, generator: np.random.Generator) -> None:
        shape = source.latent_dim
        own = np.sqrt(1 - _INHERITED**2)
        self.campaign_advertiser = zipf_ranks(generator, source.num_campaigns, source.num_advertisers, 0.9)
        self.item_campaign = zipf_ranks(generator, source.num_items, source.num_campaigns, 0.9)
        advertisers = generator.normal(size=(source.num_advertisers, shape))
        campaigns = generator.normal(size=(source.num_campaigns, shape))
        campaigns = _INHERITED * advertisers[self.campaign_advertiser] + own * campaigns
        items = generator.normal(size=(source.num_items, shape))
        self.items = _INHERITED * campaigns[self.item_campaign] + own * items
        self.users = generator.normal(size=(source.num_users, shape))
        self.item_effects = 0.5 * self.items[:, 0] + np.sqrt(0.75) * generator.normal(size=source.num_items)
        self.user_effects = generator.normal(size=source.num_users)
        self.surface_effects = generator.normal(size=NUM_SURFACES)
        self.user_order = generator.permutation(source.num_users)
        self.item_order = generator.permutation(source.num_items)
        self.directions = {name: 1 + 0.5 * generator.normal(size=shape) for name in OBJECTIVE_NAMES}


def simulate(source: SimulatorSource, dataset: DatasetConfig) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Simulate impressions, actions and the true probability of every objective.

    Returns:
        Impressions and actions in the log contract, in order of time, and a table of `impression_id`, `timestamp` and
        one float64 column per objective: the probability of a positive label given the rows that the objective is on.

    Raises:
        InputError: If the data set does not attribute by campaign, or misses a column that the simulator makes.
    """
    if any(rule.entity != "campaign_id" for rule in dataset.attribution.values()):
        raise InputError("dataset.attribution: simulated conversions are attributed by entity campaign_id; set it")
    num_days = (source.last_day - dataset.first_day).days + 1
    if num_days < 1:
        raise InputError(f"source.last_day = {source.last_day} is before dataset.first_day = {dataset.first_day}")
    generator = np.random.default_rng(source.seed)
    world = _World(source, generator)
    total = source.impressions_per_day * num_days
    moment = np.sort(generator.integers(0, num_days * MICROSECONDS_PER_DAY, total)) + microseconds(dataset.first_day)
    user = world.user_order[zipf_ranks(generator, total, source.num_users, source.user_zipf)]
    item = world.item_order[zipf_ranks(generator, total, source.num_items, source.item_zipf)]
    shown = _under_frequency_cap(user, world.item_campaign[item], moment, dataset.maturity_days)
    moment, user, item = moment[shown], user[shown], item[shown]
    surface = generator.integers(0, NUM_SURFACES, len(moment))
    quality, price = generator.normal(size=(2, len(moment)))
    columns = {"impression_id": np.arange(len(moment)), "timestamp": moment, "user_id": user, "item_id": item}
    columns |= {"campaign_id": world.item_campaign[item]}
    columns |= {"advertiser_id": world.campaign_advertiser[columns["campaign_id"]], "surface": surface}
    columns |= {"quality": quality, "price": price}
    truth = _true_probabilities(source, world, columns)
    actions, within_window = _act(source, dataset, generator, columns, truth)
    for name, share in within_window.items():
        truth[name] = truth[name] * share
    truth_columns = {"impression_id": columns["impression_id"], "timestamp": moment, **truth}
    impressions = _table(columns)
    # What few data sets ask for, and nothing else depends on.
    for name, tags in (("item_tags", _item_tags), ("item_tag_weights", _tag_weights)):
        if name in dataset.context_lists or name in dataset.context_list_weights.values():
            impressions = impressions.append_column(name, tags(item))
    return impressions, _table(actions), _table(truth_columns)


def _item_tags(items: np.ndarray) -> pa.ListArray:
    """Up to three of a dozen tags of each item, the same ones always; lists of int64, n of them."""
    drawn = splitmix64(items)
    counts = (drawn % np.uint64(4)).astype(np.int64)
    places = [(drawn >> np.uint64(8 * number)) % np.uint64(_NUM_TAGS) for number in (1, 2, 3)]
    return _lists(np.stack(places, axis=1).astype(np.int64), counts)


def _tag_weights(items: np.ndarray) -> pa.ListArray:
    counts = (splitmix64(items) % np.uint64(4)).astype(np.int64)
    return _lists(np.tile([1.0, 0.5, 0.25], (len(items), 1)), counts)


def _lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    """The first values of each row, as many as it counts."""
    used = np.arange(values.shape[1]) < counts[:, None]
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), values[used])


def _under_frequency_cap(user: np.ndarray, campaign: np.ndarray, moment: np.ndarray, cap_days: int) -> np.ndarray:
    order = np.lexsort((moment, campaign, user))
    same = (np.diff(user[order]) == 0) & (np.diff(campaign[order]) == 0)
    soon = np.diff(moment[order]) <= (cap_days + 1) * MICROSECONDS_PER_DAY
    shown = np.ones(len(user), dtype=bool)
    shown[order[1:]] = ~(same & soon)
    return shown


def _true_probabilities(
    source: SimulatorSource, world: _World, columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    users, items = columns["user_id"], columns["item_id"]
    interaction = world.users[users] * world.items[items] / np.sqrt(source.latent_dim)
    effects = world.user_effects[users] + world.item_effects[items]
    context = world.surface_effects[columns["surface"]] + columns["quality"] - 0.5 * columns["price"]
    rates = {
        "click": source.click_rate,
        "good_click": source.good_click_given_click,
        "add_to_cart_given_click": source.add_to_cart_given_click,
        "checkout_given_click": source.checkout_given_click,
        "add_to_cart_given_view": source.add_to_cart_given_view,
        "checkout_given_view": source.checkout_given_view,
    }
    truth = {}
    for name, rate in rates.items():
        personal = effects + interaction @ world.directions[name]
        truth[name] = _probabilities(source.identifier_signal * personal + source.context_signal * context, rate)
    truth["good_click"] = truth["good_click"] * truth["click"]
    return truth


def _act(
    source: SimulatorSource,
    dataset: DatasetConfig,
    generator: np.random.Generator,
    columns: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Draw actions; returns them with the share of each objective's conversions that falls inside its window."""
    moment, size = columns["timestamp"], len(columns["timestamp"])
    clicked = generator.random(size) < truth["click"]
    good = generator.random(size) < truth["good_click"] / truth["click"]
    click_moment = moment + generator.integers(1_000_000, 60_000_000, size)
    threshold = dataset.good_click.at_least
    amount = np.where(good, threshold * (1 + generator.random(size)), threshold * 0.99 * generator.random(size))
    chosen = [(np.flatnonzero(clicked), click_moment[clicked], "click", amount[clicked])]
    within_window = {}
    for action_type, rule in sorted(dataset.attribution.items()):
        for state, given, touch, window_days in (
            ("click", clicked, click_moment, rule.click_through_days),
            ("view", ~clicked, moment, rule.view_through_days),
        ):
            name = f"{action_type}_given_{state}"
            within_window[name] = 1.0 - float(np.exp(-window_days / source.mean_delay_days))
            rows = np.flatnonzero(given & (generator.random(size) < truth[name]))
            delay = generator.exponential(source.mean_delay_days * MICROSECONDS_PER_DAY, len(rows)).astype(np.int64)
            # Later ones could only be credited to another impression, which the frequency cap allows by then.
            in_time = delay < dataset.maturity_days * MICROSECONDS_PER_DAY
            rows, delay = rows[in_time], delay[in_time]
            chosen.append((rows, touch[rows] + delay + 1, action_type, generator.lognormal(3.0, 0.5, len(rows))))
    rows = np.concatenate([part[0] for part in chosen])
    types = np.concatenate([np.full(len(part[0]), part[2]) for part in chosen])
    onsite = types == "click"
    amounts = np.concatenate([part[3] for part in chosen])
    in_dwell = dataset.good_click.column == "dwell_seconds"
    actions = {
        "action_id": rows * 4 + np.array([_OFFSETS[name] for name in types]),
        "timestamp": np.concatenate([part[1] for part in chosen]),
        "user_id": columns["user_id"][rows],
        "action_type": types,
        "source": np.where(onsite, "onsite", "offsite"),
        "impression_id": np.ma.masked_array(rows, mask=~onsite),
        "item_id": columns["item_id"][rows],
        "dwell_seconds": np.ma.masked_array(amounts, mask=~onsite if in_dwell else np.ones(len(rows), dtype=bool)),
        "value": np.ma.masked_array(amounts, mask=onsite if in_dwell else np.zeros(len(rows), dtype=bool)),
        **{name: columns[name][rows] for name in dataset.action_entities},
    }
    order = np.lexsort((actions["action_id"], actions["timestamp"]))
    return {name: values[order] for name, values in actions.items()}, within_window


def _table(columns: dict[str, np.ndarray]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        arrays[name] = pa.array(np.asarray(values), mask=mask)
        if name == "timestamp":
            arrays[name] = arrays[name].cast(TIMESTAMP)
    return pa.table(arrays)


def simulator_days(table: pa.Table, first_day: date, last_day: date) -> pa.Table:
    """The rows of a table whose timestamp lies within the simulated days; later conversions are not delivered."""
    moment = table["timestamp"].cast(pa.int64()).to_numpy()
    end = microseconds(last_day) + MICROSECONDS_PER_DAY
    return table.filter(pa.array((moment >= microseconds(first_day)) & (moment < end)))
