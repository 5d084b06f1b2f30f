"""The entry point of the `loom` command: listens for SIGTERM first, and only then loads what the command needs."""

from __future__ import annotations

from typing import NoReturn

from loom.core.signals import end_on_sigterm

__all__ = ["main"]


def main() -> NoReturn:
    """The console script."""
    end_on_sigterm()
    try:
        from loom.cli.app import app

        app(prog_name="loom")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0)


if __name__ == "__main__":
    main()
