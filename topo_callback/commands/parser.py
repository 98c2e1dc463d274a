"""CommandParser: names of options in full only, what is wrong said with the usage of its own subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, which would keep old names of options alive.

    Attributes:
        later: adds arguments that need imports, when the parser is used and not when it is made; None: there are none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})
        self.later: Callable[[CommandParser], None] | None = None

    def complete(self) -> None:
        """Add the arguments of `later`, once."""
        later, self.later = self.later, None
        if later is not None:
            later(self)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.complete()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def format_help(self) -> str:
        self.complete()
        return super().format_help()

    def format_usage(self) -> str:
        self.complete()
        return super().format_usage()
