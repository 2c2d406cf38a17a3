"""One run at a time works on a store: who, and when it was last heard of, in files of which each has one writer.

A run holds the lease by a numbered file that it alone created (an object store's conditional write; elsewhere a hard
link); the highest number counts. Whoever finds its holder dead, creates the next one: nobody deletes what another may
have written meanwhile.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from components.common import storage
from components.common.config import Config
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import create_record, find_record, write_record

# A process of a machine that is watched; a run on a cluster also waits for its pods between its steps.
LOCAL_SECONDS = 180.0
CLUSTER_SECONDS = 1800.0
# Set for the steps of a run whose own process holds the lease.
HELD_BY = "AFTERCLICK_LEASE_HOLDER"
_REMEDY = "delete it if no run works on this store"


class LeaseRecord(Config):
    """What the file of a lease says.

    Attributes:
        holder: Name of the run.
        host: Where its process is.
        process_id: Which.
        heard_at: When it was last heard of, seconds since 1970.
        valid_seconds: After how long without a word it counts as dead.
        released: Whether it is over.
    """

    holder: str
    host: str
    process_id: int
    heard_at: float
    valid_seconds: float
    released: bool = False

    @property
    def silent_seconds(self) -> float:
        """How long it has not been heard of."""
        return max(0.0, time.time() - self.heard_at)

    @property
    def is_alive(self) -> bool:
        """Whether it still counts."""
        if self.released or self.silent_seconds > self.valid_seconds:
            return False
        return self.host != socket.gethostname() or _runs(self.process_id)


class Lease:
    """The right to write to a store."""

    def __init__(self, store: Store, holder: str, valid_seconds: float) -> None:
        """For the run `holder`, which counts as dead when it is not heard of for `valid_seconds`."""
        self._store, self._holder, self._valid_seconds = store, holder, valid_seconds
        self._number = 0

    def take(self) -> None:
        """Take the lease, or go on with it if the run's other processes hold it.

        Raises:
            InputError: If another run holds it.
        """
        while True:
            number, record = self._newest()
            if record is not None and record.is_alive and record.holder != self._holder:
                raise InputError(
                    f"{self._store.root}: another process runs on this store ({record.holder}, on {record.host}, heard "
                    f"of {record.silent_seconds:.0f} s ago); wait for it, or stop it"
                )
            if record is not None and record.holder == self._holder and not record.released:
                self._number = number
                self.renew()
                return
            if create_record(self._store.lease(number + 1), self._record()):
                self._number = number + 1
                for older in self._store.lease_numbers()[:-1]:
                    storage.remove(self._store.lease(older))
                return

    def is_lost(self) -> bool:
        """Whether another run has taken it over."""
        number, record = self._newest()
        return number != self._number and record is not None and record.holder != self._holder

    def renew(self, released: bool = False) -> None:
        """Say that the run is alive, or over."""
        write_record(self._store.lease(self._number), self._record(released))

    def _record(self, released: bool = False) -> LeaseRecord:
        return LeaseRecord(
            holder=self._holder,
            host=socket.gethostname(),
            process_id=os.getpid(),
            heard_at=time.time(),
            valid_seconds=self._valid_seconds,
            released=released,
        )

    def _newest(self) -> tuple[int, LeaseRecord | None]:
        numbers = self._store.lease_numbers()
        number = numbers[-1] if numbers else 0
        return number, find_record(self._store.lease(number), LeaseRecord, _REMEDY) if number else None


@contextmanager
def held(store: Store, holder: str, valid_seconds: float = LOCAL_SECONDS, is_last: bool = True) -> Iterator[None]:
    """Hold the lease of a store for as long as the block lasts, and longer if more processes of the run follow.

    Args:
        store: The store.
        holder: Name of the run, the same in all of its processes.
        valid_seconds: How long the run may be silent, in and between its processes.
        is_last: Whether the run is over with the block; it is in any case when the block fails.

    Raises:
        InputError: If another run holds the lease, or took it over because this one was silent.
    """
    if os.environ.get(HELD_BY):
        yield
        return
    lease, stop, lost = Lease(store, holder, valid_seconds), threading.Event(), threading.Event()
    lease.take()
    is_over = True
    try:
        with _kept(lease, stop, lost, valid_seconds / 4):
            yield
        is_over = is_last
    except KeyboardInterrupt:
        if lost.is_set():
            raise InputError(
                f"{store.root}: another run took over, since this one was not heard of for {valid_seconds:.0f} s; "
                "nothing is lost: the other one goes on from what is there"
            ) from None
        raise
    finally:
        if is_over and not lost.is_set():
            # It runs out by itself, should the store not answer any more.
            with suppress(OSError, InputError):
                lease.renew(released=True)


@contextmanager
def _kept(lease: Lease, stop: threading.Event, lost: threading.Event, every_seconds: float) -> Iterator[None]:
    """Renew a lease in the background; once it is lost, the main thread gets a KeyboardInterrupt."""
    # Not by SIGINT, if that can be helped: what a script starts in its background ignores that.
    is_main, before = threading.current_thread() is threading.main_thread(), None
    if is_main:
        before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    number = signal.SIGUSR1 if is_main else signal.SIGINT
    thread = threading.Thread(target=_keep, args=(lease, stop, lost, every_seconds, number), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if is_main:
            signal.signal(signal.SIGUSR1, before or signal.SIG_DFL)


def _keep(
    lease: Lease, stop: threading.Event, lost: threading.Event, every_seconds: float, number: signal.Signals
) -> None:
    """Renew a lease until it is lost; a store that does not answer is asked again."""
    while not stop.wait(every_seconds):
        with suppress(OSError, InputError):
            if lease.is_lost():
                lost.set()
                _thread.interrupt_main(number)
                return
            lease.renew()


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
