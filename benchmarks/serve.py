"""The other end of `Child`: makes an object and calls its methods; needs nothing installed."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints does not disturb the answers
    maker, *arguments = json.loads(sys.argv[1])
    module, _, name = maker.partition(":")
    made = getattr(importlib.import_module(f"benchmarks.{module}"), name)(*arguments)
    print("null", file=answers, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(made, name)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
