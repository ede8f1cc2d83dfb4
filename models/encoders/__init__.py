"""Networks from a user's events to a state, one a file."""
