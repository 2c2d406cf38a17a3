"""The pipelines, how they run here and on a cluster, and the command line."""
