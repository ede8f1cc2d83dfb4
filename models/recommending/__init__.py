"""A batch's decision: states and events in, new states and ranked lists out."""
