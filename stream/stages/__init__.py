"""The stages of a worker: users, items, requests."""
