"""The errors a user can cause, and can mend."""

from __future__ import annotations


class KdpError(Exception):
    """A fault in what the user gave; the command line prints it as one line and exits with 2."""


class Interrupted(Exception):
    """Work stopped on request (Ctrl-C, SIGTERM) after it had saved what `--resume` needs."""
