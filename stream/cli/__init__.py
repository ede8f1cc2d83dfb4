"""The `hrnn` command: the one place that may import both shells."""
