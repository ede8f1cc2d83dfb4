"""Compute the memory, disk and workers that a deployment needs."""
