"""Decides whether logs and examples are fit to train on."""
