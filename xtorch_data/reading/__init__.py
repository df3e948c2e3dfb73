"""Chunks into memory, each once: of Zarr, of files, of dask graphs, or from a cache on disk.

In come lazy variables and regions; out come variables in memory that is used again, and
failures by name. It runs on the event loop of an engine and on the threads that decode.
"""
