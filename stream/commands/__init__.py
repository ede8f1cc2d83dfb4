"""The commands of `hrnn`, one per file."""
