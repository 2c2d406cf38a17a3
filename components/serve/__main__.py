"""`python -m components.serve`."""

from components.serve.cli import app

app()
