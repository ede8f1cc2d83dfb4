"""The trainer service: train, compare, publish."""
