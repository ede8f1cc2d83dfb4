"""A local Kafka, a replay client and a panel, for the demo and the tests."""
