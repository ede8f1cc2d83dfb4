"""The training data: read from Kafka, checked, kept in a local copy, loaded as arrays."""
