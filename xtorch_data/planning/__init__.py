"""Decisions before a byte is read, as integers: what is read, in which order, who gets what.

In come sizes, windows and chunk grids; out come plans, lines of sample numbers and where a pass
was left. Nothing is read here and nothing is kept but NumPy arrays. Any thread may call it.
"""
