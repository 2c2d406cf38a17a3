"""Answers with a published version. Needs no torch."""
