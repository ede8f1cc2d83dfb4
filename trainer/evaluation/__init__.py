"""How well models and baselines predict later events."""
