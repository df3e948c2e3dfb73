"""Batches on a device: copied there ahead, or gathered and decoded there.

In come batches and blocks in page-locked memory; out come tensors on the device. It runs on the
thread that iterates, and on one that sends blocks.
"""
