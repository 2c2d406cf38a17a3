"""The `afterclick` command: imports everything, is imported by nothing."""
