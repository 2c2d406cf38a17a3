"""Collects what the logs of each day say of two ids: the edges that tables are pretrained on."""
