"""Read logs: record batches, codecs, offsets, topics that change."""
