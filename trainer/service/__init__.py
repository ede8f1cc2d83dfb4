"""The trainer's service: train, compare, publish."""
