"""The stages that a record passes: users, items, requests."""
