"""The pure core: what to recommend, without Kafka, environment or clock."""
