"""Joins impressions with later actions into labelled examples, in Beam."""
