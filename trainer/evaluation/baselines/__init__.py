"""Simple recommenders that an evaluation compares with."""
