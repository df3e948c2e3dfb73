"""Samples: their parts, the user's functions, their labels, and the batch that holds them.

In come a source and the arguments of a dataset; out comes their definition, checked. Functions
are tried here on made-up values. It runs on the thread that makes a dataset; batches belong to
whoever has them.
"""
