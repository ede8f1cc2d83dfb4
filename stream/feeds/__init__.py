"""Compacted topics that every worker follows: models, signals."""
