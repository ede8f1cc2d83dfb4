"""What `hrnn doctor` examines."""
