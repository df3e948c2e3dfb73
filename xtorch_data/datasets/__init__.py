"""What users iterate, index and split: `IterableDataset`, `MapDataset`, samplers, and proof.

In come the user's data and arguments; out come batches. Datasets are pickled to workers and
made anew there.
"""
