"""A user's state, and the events that change it."""
