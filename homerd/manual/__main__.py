"""`python -m homerd.manual [--check]`: write the pages of docs/ that are made from declarations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from homerd.manual.pages import pages, stale_pages


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages; with --check only say which are stale."""
    parser = argparse.ArgumentParser(prog="python -m homerd.manual", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing, 1 when pages are stale"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="where docs/ is")
    options = parser.parse_args(arguments)
    stale = stale_pages(options.root)
    for path in stale:
        print(path)
    if options.check:
        return 1 if stale else 0
    made = pages(options.root)
    for path in stale:
        if path in made:
            (options.root / path).parent.mkdir(parents=True, exist_ok=True)
            (options.root / path).write_text(made[path], "utf-8")
        else:
            (options.root / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
