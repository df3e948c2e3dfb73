"""Texts, HTML, random generators, memory that is used again, retries, and what is counted.

In come plain values; out come texts, arrays and sums. It knows nothing of the package's other
rooms. Any thread may call it.
"""
