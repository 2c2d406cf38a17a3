"""One process of a training job, under torchrun: the days of an arm, by a run's configuration in the store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from components.common.progress import reported
from components.train.run import main_batch, main_days


def main(arguments: Sequence[str] | None = None) -> None:
    """Train `--days` one by one from the checkpoint before, or `--batch` of a first and a last day."""
    parser = argparse.ArgumentParser(prog="python -m components.train", description=__doc__)
    for name in ("store-uri", "config-uri", "arm"):
        parser.add_argument(f"--{name}", required=True)
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--batch", nargs=2)
    work.add_argument("--days", nargs="+")
    parser.add_argument("--early-days", nargs="*", default=[])
    given = parser.parse_args(arguments)
    place = (given.store_uri, given.config_uri, given.arm)
    if given.batch:
        main_batch(*place, *given.batch)
    else:
        main_days(*place, given.days, given.early_days)


if __name__ == "__main__":
    with reported("train"):
        main()
