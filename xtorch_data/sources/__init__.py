"""The data of the user as one thing: an xarray Dataset with the chunk grids of its variables.

In come arrays, datasets, stores and files; out come lazy variables, and what their labels and
conventions say. No values are read but coordinates. It runs on the thread that makes a dataset.
"""
