"""Publishes what log days say for requests: users' recent actions and the engagement of entities."""
