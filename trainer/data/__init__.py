"""The log that is trained on: read, checked, kept in a local copy, as arrays."""
