"""Logs before the join: row checks, quarantine, expectations."""
