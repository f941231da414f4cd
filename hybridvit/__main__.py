"""`python -m hybridvit` and `hybridvit`: the command line."""

import sys

from hybridvit.import_path import leave_out_current_folder


def run() -> int:
    """The exit code of the command line, also for a Ctrl-C in the moment before the command line can look after it."""
    try:
        leave_out_current_folder()
        from hybridvit.cli import main

        return main()
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
