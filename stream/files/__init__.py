"""Input files of the commands: format, layout, rows."""
