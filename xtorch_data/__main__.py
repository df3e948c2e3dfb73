"""``python -m xtorch_data``, the same as ``xtorch-data``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="xtorch-data")
