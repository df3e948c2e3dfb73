"""`WORKLOAD=forecast QUICK=1 python -m benchmarks`."""

from .harness import main

if __name__ == "__main__":
    main()
