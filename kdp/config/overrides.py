"""`KEY=VALUE` on the command line: Hydra's grammar, and plain text where that has another meaning.

Hydra parses numbers, lists, mappings and references (`lr=1e-3`, `betas=[0.9,0.99]`). A value that
does not fit its grammar, such as a path with a bracket or a non-ASCII letter, is plain
text, and so is such an item of a list. In a sweep the commas of such a value separate plain texts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdp.config.empty import mark_empty_text
from kdp.config.errors import types_at
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


def several_values(override: str) -> list[str]:
    """The values of a key of a grid, each in Hydra's grammar; a single one for a fixed key.

    Args:
        override: `KEY=A,B`, `KEY=range(1,4)` or `KEY=VALUE`.

    Raises:
        KdpError: it is not of the form KEY=VALUE, or its values cannot be listed.
    """
    _check_form(override)
    parsed = _parse(override)
    if parsed and not parsed.is_sweep_override():
        return [split_override(override)[1]]
    if parsed:
        try:
            return list(parsed.sweep_string_iterator())
        except HydraException as error:
            raise KdpError(
                f"the override {override!r} cannot be swept: list its values (a,b) "
                "or give range(start,stop)"
            ) from error
    key, value = split_override(override)
    return [
        part if _parse(f"{key}={part}") else _listed(key, part) or _quoted(part)
        for part in _split_commas(value)
    ]


def _split_commas(text: str) -> list[str]:
    """Split at commas, but for those within balanced brackets or quotes."""
    parts = re.findall(r"(?:'[^']*'|\"[^\"]*\"|\[[^][]*\]|\{[^{}]*\}|\([^()]*\)|[^,])+", text)
    return [part.strip() for part in parts]


def _check_form(override: str, prefix: str = "") -> None:
    if not _OVERRIDE.fullmatch(override):
        raise KdpError(f"{prefix}the override {override!r} is not of the form KEY=VALUE")


def _for_hydra(path: Path, override: str, groups: Collection[str], added: Collection[str]) -> str:
    _check_form(override, f"{path}: ")
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
    if not parsed or _differs_from_text(parsed, key, value):
        override = f"{key}={_listed(key, value) or _quoted(value)}"
    else:
        override = f"{override.partition('=')[0]}={mark_empty_text(value)}"
    if "@" in key or key.startswith("hydra/") or not _parse(override):
        raise KdpError(f"{path}: the override {override!r} has a key that kdp cannot read")
    return override if override.startswith("+") else f"++{override}"


def _listed(key: str, value: str) -> str:
    """A list whose texts are quoted where Hydra's grammar has none of their letters; or ""."""
    if _is_text(key) or not (value.startswith("[") and value.endswith("]")):
        return ""
    parts = _split_commas(value[1:-1])
    quoted = [part if _parse(f"{key}={part}") else _quoted(part) for part in parts]
    override = f"[{','.join(quoted)}]"
    return override if _parse(f"{key}={override}") else ""


def _parse(override: str) -> Override | None:
    try:
        parsed = OverridesParser.create().parse_override(override)
        value = parsed.value()
        if isinstance(value, str):
            OmegaConf.create({"value": value})  # raises for a reference such as `${` or `${.}`
    except (HydraException, OmegaConfBaseException, ValueError):  # a number of 5000 digits
        return None
    return parsed


def _differs_from_text(parsed: Override, key: str, value: str) -> bool:
    """Whether Hydra reads something else than the text that a key takes."""
    read = parsed.value()
    if isinstance(read, str):  # blanks at the ends, which Hydra strips
        return value != value.strip()
    return isinstance(read, bool | int | float) and _is_text(key)


def _is_text(key: str) -> bool:
    """Whether a key takes only text: in `output.name=007` the value is no number."""
    types = types_at(tuple(key.split(".")))
    return bool(types) and types <= {str, Path}


def _quoted(value: str) -> str:
    """The value in quotes. Hydra takes a backslash as an escape only before a quote."""
    try:
        OmegaConf.create({"value": value})
    except OmegaConfBaseException:  # `${` that begins no reference
        value = value.replace("${", "\\${")
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
