"""The costs of an epoch, before and after: explain, memory, statistics and plots.

In come plans, metadata and recorders; out come texts, tables and figures. Nothing is read. It
runs on the thread that asks.
"""
