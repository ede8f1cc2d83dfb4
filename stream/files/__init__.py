"""Files that commands read: what kind they are, how they are laid out, their rows."""
