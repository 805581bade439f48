"""Reading a configuration file: found, composed by Hydra, checked by the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path, PurePath
from typing import Any

from hydra import compose, initialize_config_module
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedValueType,
)
from pydantic import ValidationError

from kdp.config import Config
from kdp.config.empty import mark_empty, restore_empty
from kdp.config.errors import explain
from kdp.config.lookup import find_config, find_default, find_overlay, overlay_groups
from kdp.config.overrides import for_hydra, split_override
from kdp.config.references import check_references
from kdp.config.schema import LENGTHS
from kdp.errors import KdpError, first_line
from kdp.yaml_file import yaml_text

MAX_FILES = 100
"""Of one configuration: files that include others several times multiply."""
_GLOBAL = "# @package _global_"
"""Comment of an overlay whose keys start at the top level, not within its group."""
_AS_TEXT = "write \\${ for plain text"


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Find a YAML file, compose it (defaults lists, `key=value` overrides) and check it.

    Raises:
        KdpError: the file is missing or no YAML, or a key or value does not fit the schema.
    """
    return load_with_files(path, overrides)[0]


def load_with_files(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, list[Path]]:
    """The same with the files that the configuration is composed of, itself first."""
    path = find_config(path)
    with _hydra():
        registered = _register(path, overrides)
        plain = _compose(path, overrides, registered)
    _prefer_overrides(plain, {split_override(override)[0] for override in overrides})
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise KdpError(f"{path}: {explain(error, overlay_groups(path))}") from error
    return config, list(dict.fromkeys(registered.files))


def _prefer_overrides(plain: dict[str, Any], overridden: set[str]) -> None:
    """Drop the steps of a file where an override gives the same length in epochs, or the reverse.

    Args:
        plain: composed values, changed in place.
        overridden: keys of the overrides.
    """
    for name, section in LENGTHS.items():
        for pair in section.epoch_keys.items():
            given = [key for key in pair if f"{name}.{key}" in overridden]
            if len(given) == 1 and plain[name].get(given[0]) is not None:
                (other,) = {*pair} - {*given}
                plain[name].pop(other, None)


@dataclass
class _Registered:
    """The files of one configuration, as registered with Hydra.

    Attributes:
        files: in the order of reading, the configuration first.
        names: Hydra's name of each file.
        groups: groups of overlays in the defaults lists, each with the file that names it.
        added: groups of overlays that only an override names.
    """

    files: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: dict[str, Path] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)


def _compose(path: Path, overrides: Sequence[str], registered: _Registered) -> Any:
    hydra_overrides = for_hydra(path, overrides, registered.groups, registered.added)
    try:
        composed = compose(config_name=registered.names[0], overrides=hydra_overrides)
        return _resolved(path, composed)
    except (HydraException, OmegaConfBaseException) as error:
        given = getattr(error, "override", None)
        where = f" (in the override {given.removeprefix('++')!r})" if given else ""
        raise KdpError(f"{path}: {first_line(error)}{where}") from error


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra, which forgets at the end what is registered with it within.

    That is one configuration, and Hydra copies all that it knows whenever it composes one. It is
    given a module, without files, because looking for that of its caller takes long; and it reads
    none of the files of an application of its own (help, logging), which took half of the time.
    """
    store = ConfigStore.instance()
    with initialize_config_module("kdp.config", version_base="1.3"):  # registers Hydra's own files
        before = store.repo
        store.repo = _copy_of_groups(before)
        store.store(group="hydra", name="config", node=_hydra_settings(), package="hydra")
        try:
            yield
        finally:
            store.repo = before


@cache
def _hydra_settings() -> DictConfig:
    return OmegaConf.structured(HydraConf(defaults=[]))


def _copy_of_groups(group: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested groups; the configurations in them are shared."""
    return {
        name: _copy_of_groups(entry) if isinstance(entry, dict) else entry
        for name, entry in group.items()
    }


def _resolved(path: Path, composed: DictConfig) -> Any:
    """The values, with every reference `${...}` replaced by what it refers to."""
    try:
        check_references(OmegaConf.to_container(composed))
    except ValueError as error:
        raise KdpError(f"{path} is refused with its references: {error}") from error
    try:
        return restore_empty(OmegaConf.to_container(composed, resolve=True))
    except InterpolationResolutionError as error:
        parent: Any = OmegaConf.to_container(error.parent_node) if error.parent_node else {}
        text = parent[error.key] if isinstance(error.key, int) else parent.get(error.key, "${")
        raise KdpError(
            f"{path}: {error.full_key}: the reference in {text!r} cannot be resolved; {_AS_TEXT}"
        ) from error


def _register(path: Path, overrides: Sequence[str]) -> _Registered:
    """Register every file of a configuration with Hydra, and the overlays of the overrides."""
    registered = _Registered()
    _register_file(path, "", registered, ())
    for override in overrides:
        group, name = split_override(override)
        if override.startswith("~"):
            continue
        if group not in registered.groups and group in overlay_groups(path):
            registered.added.add(group)
        if group in registered.groups or group in registered.added:
            overlay = find_overlay(group, name, registered.groups.get(group, path))
            _register_file(overlay, group, registered, ())
    return registered


def _register_file(
    path: Path, group: str, registered: _Registered, including: tuple[Path, ...]
) -> str:
    """Register a file and the files of its defaults list with Hydra.

    Hydra identifies files by group and name alone. Two files of one name in different folders can
    belong to one configuration, so a configuration gets a unique name; an overlay keeps its own,
    because overrides choose it by name.

    Returns:
        Hydra's name of the file.
    """
    if any(path.samefile(other) for other in including):
        chain = " -> ".join(str(file) for file in (*including, path))
        raise KdpError(f"the defaults lists form a cycle: {chain}; remove one entry")
    if len(registered.files) == MAX_FILES:
        raise KdpError(f"{path}: the defaults lists name more than {MAX_FILES} files")
    node, text = _read(path)
    name = path.stem if group else f"{path.stem}__{len(registered.files)}"
    registered.files.append(path)
    registered.names.append(name)
    within = (*including, path)
    defaults = [
        _default(entry, path, group, registered, within) for entry in _defaults_list(path, node)
    ]
    node = OmegaConf.create(mark_empty(OmegaConf.to_container(node)))
    if defaults:
        node["defaults"] = defaults
    package = "_global_" if _GLOBAL in text.splitlines()[:3] else None
    ConfigStore.instance().store(name=name, node=node, group=group or None, package=package)
    return name


def _defaults_list(path: Path, node: DictConfig) -> list[Any]:
    """The entries of a file's defaults list: names of files, and mappings of groups to names.

    Raises:
        KdpError: it is no list, or holds something else.
    """
    if "defaults" not in node:
        return []
    entries = OmegaConf.to_container(node)["defaults"]  # type: ignore[index, call-overload]
    if not isinstance(entries, list):
        raise KdpError(
            f"{path}: defaults: it must be a list of configurations or GROUP: NAME, got {entries!r}"
        )
    for entry in entries:
        if not _is_default(entry):
            raise KdpError(
                f"{path}: defaults: {entry!r} names no file; give the name of a configuration, "
                "relative to this file or to configs/, or GROUP: NAME"
            )
    once = [group for entry in entries for group in _only_once(entry)]
    if twice := next((name for name in once if once.count(name) > 1), None):
        raise KdpError(f"{path}: defaults: {twice} stands there more than once; keep one of them")
    return entries


def _only_once(entry: Any) -> list[str]:
    """What an entry of a defaults list has that the list may have once: groups, and `_self_`."""
    if isinstance(entry, dict):
        words = [choice.split() for choice in entry]
        return [name.lstrip("/") for *how, name in words if "override" not in how]
    return [entry] if entry == "_self_" else []


def _is_default(entry: Any) -> bool:
    """Whether an entry of a defaults list names a file, or for groups a file or None."""
    if not isinstance(entry, dict):
        return _names_file(entry)
    return bool(entry) and all(
        isinstance(group, str) and group.strip() and (name is None or _names_file(name))
        for group, name in entry.items()
    )


def _names_file(value: Any) -> bool:
    """Whether a value is text that can be looked up in the folders of configurations."""
    if not isinstance(value, str) or "${" in value or value == "???" or not value.strip():
        return False
    path = PurePath(value)
    return bool(path.name) and path.name != ".." and not path.is_absolute()


def _default(
    entry: Any, path: Path, group: str, registered: _Registered, within: tuple[Path, ...]
) -> Any:
    """An entry of a defaults list with Hydra's name of its file."""
    if isinstance(entry, str):
        if entry == "_self_":
            return entry
        return _register_file(find_default(entry, path), group, registered, within)
    for choice, name in entry.items():
        target = choice.split()[-1].lstrip("/")  # after `override` or `optional`, if any
        inner = f"{group}/{target}" if group and not choice.split()[-1].startswith("/") else target
        registered.groups.setdefault(inner, path)
        if name is not None:
            _register_file(find_overlay(target, name, path), inner, registered, within)
    return entry


def _read(path: Path) -> tuple[DictConfig, str]:
    """The keys of a file, and its text, whose comments may name a package.

    Raises:
        KdpError: it is no YAML, too long, or no mapping.
    """
    try:
        text = yaml_text(path)
        node = OmegaConf.load(StringIO(text))
    except GrammarParseError as error:
        raise KdpError(
            f"{path}: {error.full_key}: {error.value!r} is no valid reference; {_AS_TEXT}"
        ) from error
    except UnsupportedValueType as error:
        raise KdpError(
            f"{path}: {error.full_key}: {first_line(error)}; use text, numbers, true, false, null, "
            "lists and mappings"
        ) from error
    except KdpError:
        raise
    except Exception as error:  # the YAML library has no common base for what it raises
        raise KdpError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise KdpError(f"{path} holds no configuration (a mapping of keys to values)")
    return node, text
