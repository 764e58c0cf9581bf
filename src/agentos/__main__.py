"""`python -m agentos` is the command `agentos`."""

from agentos.cli import main

if __name__ == "__main__":
    main()
