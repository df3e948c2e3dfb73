"""The loader: worker processes, batches on their device, and how many workers there should be.

In comes a dataset; out come batches, in order, on the device that was asked for. It runs on the
thread that iterates, and starts workers and the server that forks them.
"""
