"""What is counted of items: their signals, as records and as arrays."""
