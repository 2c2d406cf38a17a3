"""The ranker: embedding tables, feature processing, sequence encoder, heads."""
