"""`python -m jaxrefine`."""

import sys

from jaxrefine.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
