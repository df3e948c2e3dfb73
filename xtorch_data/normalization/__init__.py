"""Statistics of the training data: fitted, applied, undone and kept in files.

In comes a dataset; out come statistics by variable, and transforms. Fitting reads each chunk
once.
"""
