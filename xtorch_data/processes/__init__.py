"""What processes share: memory without a name, an end with the main process, errors.

In come sizes and callables; out come arrays that siblings see, and errors that can be sent. It
runs in the main process, in workers and in fork servers.
"""
