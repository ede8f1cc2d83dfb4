"""A local Kafka, a client and a panel: what the demo and the tests run on."""
