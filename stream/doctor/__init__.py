"""The checks of `hrnn doctor`."""
