"""`python -m homerd`, the same as the command `homerd`."""

from homerd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
