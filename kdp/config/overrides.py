"""`KEY=VALUE` on the command line: Hydra's grammar, and plain text where that has another meaning.

Hydra parses numbers, lists, mappings and references (`lr=1e-3`, `betas=[0.9,0.99]`). A value that
does not fit its grammar, such as a path with a bracket or a non-ASCII letter, is plain
text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from kdp.config.explain import types_at
from kdp.errors import KdpError

# KEY=VALUE, +KEY=VALUE, ++KEY=VALUE, ~KEY or ~KEY=VALUE
_OVERRIDE = re.compile(r"(\+{0,2}[^\s=+~]+=.*)|(~[^\s=]+(=.*)?)", re.DOTALL)


def for_hydra(
    path: Path, overrides: Sequence[str], groups: Collection[str], added: Collection[str] = ()
) -> list[str]:
    """Translate overrides into Hydra's grammar.

    Args:
        path: the configuration, for messages.
        overrides: as they were typed.
        groups: groups of overlays that the configuration chooses from (GROUP=NAME).
        added: groups of overlays that only an override names.

    Raises:
        KdpError: an override is not of the form KEY=VALUE, or has several values.
    """
    return [_for_hydra(path, override, groups, added) for override in overrides]


def split_override(override: str) -> tuple[str, str]:
    """Key and value of an override, without the signs before the key."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _for_hydra(path: Path, override: str, groups: Collection[str], added: Collection[str]) -> str:
    if not _OVERRIDE.fullmatch(override):
        raise KdpError(f"{path}: the override {override!r} is not of the form KEY=VALUE")
    key, value = split_override(override)
    parsed = _parse(override)
    if parsed and parsed.is_sweep_override():
        raise KdpError(
            f"{path}: the override {override!r} has several values: run each with `kdp sweep`, "
            f"or quote one that holds a comma: \"{key}='{value}'\""
        )
    if override.startswith("~") or key in groups:
        return override
    if key in added:
        return f"+{key}={value}"
    if not parsed or (isinstance(parsed.value(), bool | int | float) and _is_text(key)):
        override = f"{key}={_quoted(value)}"
    if not _parse(override):
        raise KdpError(f"{path}: the override {override!r} has a key that kdp cannot read")
    return override if override.startswith("+") else f"++{override}"


def _parse(override: str) -> Override | None:
    try:
        parsed = OverridesParser.create().parse_override(override)
        parsed.value()
    except HydraException:
        return None
    return parsed


def _is_text(key: str) -> bool:
    """Whether a key takes only text: in `output.name=007` the value is no number."""
    types = types_at(tuple(key.split(".")))
    return bool(types) and types <= {str, Path}


def _quoted(value: str) -> str:
    """The value in quotes. Hydra takes a backslash as an escape only before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
