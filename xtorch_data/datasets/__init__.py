"""Datasets that users iterate, index and split, samplers, and proof.

In come the user's data and arguments; out come batches. Datasets are pickled to workers and
made anew there.
"""
