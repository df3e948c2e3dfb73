"""What a sample is: its parts, the user's functions, its labels, and the batch that holds it.

In come a source and the arguments of a dataset; out comes their definition, checked. Functions
are tried here on made-up values. It runs on the thread that makes a dataset; batches belong to
whoever has them.
"""
