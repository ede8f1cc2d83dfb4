"""Compacted topics that every worker reads: models, signals."""
