"""What users did with items, as pairs: read in batches, counted, compared by their vectors."""
