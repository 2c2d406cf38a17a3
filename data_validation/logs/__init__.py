"""Logs before the join: row checks, quarantine, expectations."""

import os

# Great Expectations would tell its makers of every run; it asks when it is imported.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
