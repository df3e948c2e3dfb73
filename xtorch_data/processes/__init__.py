"""Memory that processes share, their end with the main process, and errors that can be sent.

In come sizes and callables; out come arrays that siblings see, and errors that can be sent. It
runs in the main process, in workers and in fork servers.
"""
