"""Where `keepfit` begins: an interrupt while the command is still being read ends it as one does later, without a traceback."""

import sys


def main() -> None:
    """Entry point: the command, as `flows.cli` says."""
    try:
        from flows.cli import main as command
    except KeyboardInterrupt:
        print("Stopped by hand; nothing was begun.", file=sys.stderr)
        if "--json" in sys.argv:
            print('{"error": "Stopped by hand; nothing was begun."}')
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
