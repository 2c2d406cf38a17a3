"""Sources of logs: each writes impressions and actions in the one log contract."""
