"""Replaced parts of Faust. Each file names the defect that it fixes."""
