"""A worker process of Beam's own runner: `python -m components.common.beam_worker` in place of Beam's module."""

from __future__ import annotations

import sys

from components.common.long_lived import long_lived

with long_lived():
    from apache_beam.runners.worker import sdk_worker_main

if __name__ == "__main__":
    sdk_worker_main.main(sys.argv)
