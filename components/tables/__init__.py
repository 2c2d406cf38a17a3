"""Embedding tables and what trains their rows, on one process or spread over many; knows no particular model."""
