"""`python -m vmjit` is the command `vmjit`."""

import sys

from vmjit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
