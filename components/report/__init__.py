"""One self-contained page per run, for people."""
