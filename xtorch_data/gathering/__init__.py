"""From blocks in memory to tensors, batch first.

In come blocks and the numbers of samples; out come batches in memory that is used again. It
runs on threads that gather, several batches at a time.
"""
