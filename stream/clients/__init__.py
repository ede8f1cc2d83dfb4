"""Kafka clients of the commands."""
