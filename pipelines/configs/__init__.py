"""Configurations that are shipped."""
