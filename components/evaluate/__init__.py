"""Scores every arm on a day before it is trained on that day, and keeps the AUC ledger."""
