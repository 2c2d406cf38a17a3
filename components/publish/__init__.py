"""Puts a version where servers look."""
