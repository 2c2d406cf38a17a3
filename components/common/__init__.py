"""Plumbing and records that every step shares: configuration, storage, manifests, the store's layout, the ledger."""
