"""One epoch in one process: blocks read ahead, batches gathered beside the consumer, order kept.

In come a plan and the definition of samples; out come batches, in order or by number. It owns
the event loop and the threads of an iteration, which end with it.
"""
