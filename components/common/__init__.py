"""Contracts and plumbing shared by every step. Imports nothing from the steps."""
