"""Predictions laid into labeled arrays, and labeled arrays to Zarr, in chunks that fit.

In come a dataset, batches of predictions or data, and a path; out comes a store that is whole, or
says that it is not. Copying runs on threads of this process, or on the cluster of a dask client;
predictions are laid by the thread that adds them.
"""
