"""How fast batches come from a store: `make bench`."""
