"""What is published: INT4 tables, the typed manifest, the predictor and the request contract. Needs no torch."""
