"""The training shell: reads the sessions, fits, compares, publishes."""
