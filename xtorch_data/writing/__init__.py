"""Labeled arrays to Zarr, in chunks that fit.

In come a dataset and a path; out comes a store that is whole, or says that it is not. It runs
on threads of this process, or on the cluster of a dask client.
"""
