"""The terms of a score, one a file."""
