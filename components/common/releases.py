"""Records that the gate, export and publish exchange: the blessing, the publication and the channels' pointers."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from components.common.config import Config
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import find_record
from components.common.trials import TrialVerdict

PRODUCTION_CHANNEL = "CURRENT"
EXPERIMENT_CHANNEL = "EXPERIMENT"
# Cumulative AUC gain, in percent, that blesses a candidate unless configured otherwise (Qiu et al. 2025, section 4.4).
MIN_GAIN_PERCENT = 0.10
# Daily runs in a row that withhold a version before it is called out.
ALARM_DAYS = 3
BATCH = "batch"
DAILY = "daily"
PRETRAINING = "pretraining"

Action = Literal["first", "refresh", "promote", "return", "experiment"]


class Release(Config):
    """One checkpoint that a run may publish.

    Attributes:
        action: The `first` model, a `refresh` of the production arm, a blessed candidate to production (`promote`) or
            to its own channel (`experiment`), or the arm on probation back to production (`return`).
        arm: Its arm.
        checkpoint_digest: The one checkpoint that may be published.
        trained_through: Its last day.
        reasons: Why.
    """

    action: Action
    arm: str
    checkpoint_digest: str
    trained_through: date
    reasons: tuple[str, ...]

    @property
    def channel(self) -> str:
        """Whose pointer it moves."""
        return EXPERIMENT_CHANNEL if self.action == "experiment" else PRODUCTION_CHANNEL


class Blessing(Config):
    """What the gate says on one day.

    Attributes:
        pipeline: Whose run: `batch` or `daily`.
        event_date: The newest scored day.
        production: The arm in production before the run; the one that is to be the first if nothing is published yet.
        verdicts: On each trial that was open.
        notes: What else was found, such as arms that failed.
        releases: What may be published, at most one per channel.
        withheld: Why something was not released.
        ledger_digest: Digest of the ledger rows, trials and thresholds that all this was made from.
        served: The objectives that were judged.
        thresholds: What they were judged by.
    """

    pipeline: str
    event_date: date
    production: str
    verdicts: tuple[TrialVerdict, ...] = ()
    notes: tuple[str, ...] = ()
    releases: tuple[Release, ...] = ()
    withheld: tuple[str, ...] = ()
    ledger_digest: str
    served: tuple[str, ...] = ("checkout_given_click", "checkout_given_view")
    thresholds: dict[str, Any] = {}

    @property
    def blessed(self) -> bool:
        """Whether a candidate passed."""
        return any(verdict.answer == "blessed" and verdict.kind == "candidate" for verdict in self.verdicts)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, or why not, of every trial."""
        judged = (f"{one.candidate} is {one.answer}: {reason}" for one in self.verdicts for reason in one.reasons)
        return (*self.notes, *judged)


class Pointer(Config):
    """Which version a channel serves.

    Attributes:
        version: Its digest.
        arm: Of which arm.
        checkpoint_digest: Made from which checkpoint.
        trained_through: The last day that it was trained on.
        published_on: The day of the run that published it.
        arm_since: The day on which the arm came to this channel; of the first one, the beginning of time.
        replaced: The arm that it was promoted over; empty for the first one, and for one that came back.
    """

    version: str
    arm: str
    checkpoint_digest: str
    trained_through: date
    published_on: date
    arm_since: date = date.min
    replaced: str = ""


class PublishedVersion(Config):
    """One version that a run published."""

    action: Action
    channel: str
    arm: str
    version: str


class ExportedVersion(Config):
    """What became of one release.

    Attributes:
        checkpoint_digest: The released checkpoint.
        version: Its version's digest; empty if it is withheld.
        withheld: Why it is.
    """

    checkpoint_digest: str
    version: str = ""
    withheld: str = ""


class Export(Config):
    """What one run exported, a version for each release of its blessing, in order."""

    pipeline: str
    event_date: date
    versions: tuple[ExportedVersion, ...]


class Publication(Config):
    """What one run published; written before the pointers move.

    Attributes:
        pipeline: Whose run: `batch` or `daily`.
        event_date: The run's day.
        versions: What was published.
        withheld: Why a released checkpoint was not: its version failed its limits.
    """

    pipeline: str
    event_date: date
    versions: tuple[PublishedVersion, ...]
    withheld: tuple[str, ...] = ()

    @property
    def promoted(self) -> bool:
        """Whether another arm came to production."""
        return any(version.action in ("promote", "return") for version in self.versions)

    @property
    def production(self) -> str:
        """The version that production was given, or else the first one published."""
        versions = sorted(self.versions, key=lambda version: version.channel != PRODUCTION_CHANNEL)
        return versions[0].version if versions else ""


def read_pointer(store: Store, channel: str = PRODUCTION_CHANNEL) -> Pointer | None:
    """The version that a channel serves, or None before the first publication.

    Raises:
        InputError: If the pointer is damaged.
    """
    remedy = "restore it, or delete it: the next release writes it"
    return find_record(store.pointer(channel), Pointer, remedy)


def known_pointer(store: Store, channel: str = PRODUCTION_CHANNEL) -> Pointer:
    """The version that a channel serves.

    Raises:
        InputError: If nothing is published on the channel, or the pointer is damaged.
    """
    pointer = read_pointer(store, channel)
    if pointer is None:
        raise InputError(
            f"{store.pointer(channel)}: nothing is published yet on this channel; `afterclick show` says why"
        )
    return pointer


def read_blessing(store: Store, pipeline: str, event_date: date) -> Blessing | None:
    """The verdict in a pipeline's run of a day, or None."""
    remedy = "delete it, and run the day again"
    return find_record(store.blessing(pipeline, event_date), Blessing, remedy)


def read_publication(store: Store, pipeline: str, event_date: date) -> Publication | None:
    """What a pipeline's run of a day published, or None."""
    remedy = "delete it, and run the day again"
    return find_record(store.publication(pipeline, event_date), Publication, remedy)


def read_export(store: Store, pipeline: str, event_date: date) -> Export | None:
    """What a pipeline's run of a day exported, or None."""
    return find_record(store.export(pipeline, event_date), Export, "delete it, and run the day again")


def days_withheld(store: Store, event_date: date) -> int:
    """Daily runs in a row, up to a day, that withheld a version which failed its limits."""
    count = 0
    for day in sorted(store.publication_days(DAILY), reverse=True):
        publication = read_publication(store, DAILY, day) if day <= event_date else None
        if publication is not None:
            if not publication.withheld:
                break
            count += 1
    return count
