"""Faults by name: each row does one kind of harm to a deployment under load, then everything is checked.

python -m tests.system.faults --only kill9 hot-user --seed 7 --json
"""
