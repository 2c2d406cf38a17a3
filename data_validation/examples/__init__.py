"""Examples after the join: statistics, schema, drift, review."""
