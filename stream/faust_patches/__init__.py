"""Parts of Faust that are replaced; each file names the defect that it mends."""
