"""Trains the multi-task ranker: one long batch, then day by day."""
