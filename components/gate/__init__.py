"""Decides what may be published, from the ledger alone."""
