"""Pretrains the tables of ids on all engagement in the logs: contrastive, then as a knowledge graph."""
