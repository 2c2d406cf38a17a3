"""Chooses what a scheduled run works on, and marks runs as finished."""
