"""What an epoch will cost and what it took: explain, memory, statistics and plots.

In come plans, metadata and recorders; out come texts, tables and figures. Nothing is read. It
runs on the thread that asks.
"""
