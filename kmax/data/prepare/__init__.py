"""From official downloads to what training reads, and checks of the result."""

from kmax.data.prepare.commands import Options, check, main, parse, prepare, run

__all__ = ["Options", "check", "main", "parse", "prepare", "run"]
