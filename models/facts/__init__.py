"""Facts of items and users: their schemas and records."""
