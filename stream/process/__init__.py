"""Logs, health checks, retries and a bounded stop of a process."""
