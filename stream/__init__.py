"""The online shell: a Faust worker."""
