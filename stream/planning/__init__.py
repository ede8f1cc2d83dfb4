"""How much memory, disk and network a deployment needs."""
