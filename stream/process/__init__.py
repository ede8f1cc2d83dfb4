"""What a process does beside its work: logs, health, retries, a bounded stop."""
