"""What families add to the configuration, without the configuration knowing any family.

A family registers, when `kdp.tasks.sections` is imported:

- `register_section(key, SectionClass)`: an optional section at the top of the file, read by
  `config.section(SectionClass)`. Where a file does not have it, its defaults count; a class with a
  field that has no default must be in the file before it can be read.
- `register_data_kind(kind, SamplesClass)`: the schema of an entry of `data:` or `evaluation:` with
  `kind: <kind>`. The class derives from `SamplesConfig` and declares the fields of this kind alone.
  One class may serve several kinds. The family's loader narrows by `isinstance`.
- `register_data_options(SectionClass)`: further keys of `data:`, of any kind, read by
  `config.data.options(SectionClass)`: how this family changes its training samples.
- `register_calibration_options(SectionClass)`: further keys of `prune.calibration`, read by
  `config.prune.calibration.options(SectionClass)`: how this family takes its calibration samples.

A section module imports pydantic and `kdp.config` alone (no torch), so that a configuration is
checked before anything heavy is loaded:

    # kdp/tasks/birds/section.py
    class BirdFolders(SamplesConfig):
        folder: Path
        \"\"\"Folder with a folder of sounds for each species.\"\"\"

    class SongConfig(Section):
        min_pitch: float = 500.0
        \"\"\"Lowest pitch that is reported, in Hz.\"\"\"

    register_data_kind("birds", BirdFolders)
    register_section("song", SongConfig)

A section stays known once registered; registering the same class again changes nothing. All are
listed by name, whatever the order of registration: it depends on what was imported first.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from kdp.config.base import Section

if TYPE_CHECKING:
    from kdp.config.data import SamplesConfig

TABLE = "kdp.tasks.sections"
"""The module that registers every built-in family. It is named here and imported on the first use,
so that every reader of a configuration knows all sections, and this package imports no family."""

_sections: dict[str, type[Section]] = {}
_kinds: dict[str, type[SamplesConfig]] = {}
_data_options: list[type[Section]] = []
_calibration_options: list[type[Section]] = []
_version = 0


def register_section(key: str, section: type[Section]) -> None:
    """Add an optional section at the top of the file.

    Raises:
        ValueError: another class has the key.
    """
    _add(_sections, key, section)


def register_data_kind(kind: str, samples: type[SamplesConfig]) -> None:
    """Add a kind of samples.

    Raises:
        ValueError: another class has the kind.
    """
    _add(_kinds, kind, samples)


def register_data_options(options: type[Section]) -> None:
    """Add keys to the section `data`, whatever its kind.

    Raises:
        ValueError: other options have one of the keys.
    """
    _add_options(_data_options, options)


def register_calibration_options(options: type[Section]) -> None:
    """Add keys to the section `prune.calibration`.

    Raises:
        ValueError: other options have one of the keys.
    """
    _add_options(_calibration_options, options)


def sections() -> Mapping[str, type[Section]]:
    """The registered sections by key."""
    load_table()
    return dict(sorted(_sections.items()))


def data_kinds() -> Mapping[str, type[SamplesConfig]]:
    """The registered kinds of samples."""
    load_table()
    return dict(sorted(_kinds.items()))


def data_options() -> tuple[type[Section], ...]:
    """The registered options of `data`."""
    load_table()
    return _by_name(_data_options)


def calibration_options() -> tuple[type[Section], ...]:
    """The registered options of `prune.calibration`."""
    load_table()
    return _by_name(_calibration_options)


def version() -> int:
    """A number that grows with every registration."""
    load_table()
    return _version


def load_table() -> None:
    """Register the built-in families, once."""
    import_module(TABLE)


def _add(table: dict[str, type], key: str, section: type) -> None:
    global _version
    known = table.get(key)
    if known is section:
        return
    # A user's file that is loaded twice defines its classes twice.
    if known is not None and not _same(known, section):
        raise ValueError(f"{key!r} is registered by {known.__module__}.{known.__qualname__}")
    table[key] = section
    _version += 1


def _add_options(table: list[type[Section]], options: type[Section]) -> None:
    global _version
    for known in table:
        if _same(known, options):
            return
        shared = known.model_fields.keys() & options.model_fields.keys()
        if shared:
            raise ValueError(f"the option {min(shared)!r} is registered by {known.__name__}")
    table.append(options)
    _version += 1


def _by_name(table: list[type[Section]]) -> tuple[type[Section], ...]:
    return tuple(sorted(table, key=lambda options: min(options.model_fields)))


def _same(known: type, other: type) -> bool:
    return (known.__module__, known.__qualname__) == (other.__module__, other.__qualname__)
