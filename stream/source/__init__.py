"""Reading logs: record batches, codecs, offsets, topics that change."""
