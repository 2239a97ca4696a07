"""The entry point of the command line: checks our packages before importing them."""

import sys

from pipeline.packages import REMEDY, collision


def main() -> None:
    """Run the command line; exit code 2 if another distribution's package would be imported instead of ours."""
    if problem := collision():
        print(f"{problem}; {REMEDY}", file=sys.stderr)
        sys.exit(2)
    from pipeline.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
