"""The commands of `hrnn`, one a file."""
