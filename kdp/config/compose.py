"""Reading a configuration file: composed by Hydra, checked by the schema, explained in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdp.config import Config
from kdp.config.explain import explain
from kdp.errors import KdpError, first_line

# KEY=VALUE, +KEY=VALUE, ++KEY=VALUE, ~KEY or ~KEY=VALUE
_OVERRIDE = re.compile(r"(\+{0,2}[^\s=+~]+=.*)|(~[^\s=]+(=.*)?)", re.DOTALL)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Compose a YAML file (Hydra defaults lists, `key=value` overrides) and check it.

    Raises:
        KdpError: the file is missing or no YAML, or a key or value does not fit the schema.
    """
    plain = _compose(path, overrides)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise KdpError(f"{path}: {explain(error)}") from error


def composed_files(path: Path, overrides: Sequence[str] = ()) -> list[Path]:
    """The files a configuration is composed of, itself first.

    Raises:
        KdpError: one of them is missing or no YAML.
    """
    return list(dict.fromkeys(_register_all(path, overrides)[0]))


def _compose(path: Path, overrides: Sequence[str]) -> Any:
    from hydra import compose, initialize
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    wrong = next((o for o in overrides if not _OVERRIDE.fullmatch(o)), None)
    if wrong is not None:
        raise KdpError(f"{path}: the override {wrong!r} is not of the form KEY=VALUE")
    _, groups = _register_all(path, overrides)
    fixed = [o if o.split("=")[0] in groups or o[0] in "+~" else f"++{o}" for o in overrides]
    try:
        with initialize(version_base="1.3", config_path=None):
            composed = compose(config_name=path.stem, overrides=fixed)
        return OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        given = getattr(error, "override", None)
        where = f" (in the override {given.removeprefix('++')!r})" if given else ""
        raise KdpError(f"{path}: {first_line(error)}{where}") from error


def _register_all(path: Path, overrides: Sequence[str]) -> tuple[list[Path], set[str]]:
    """Give Hydra every file of a configuration: which they are, and the groups to choose in."""
    from hydra.core.config_store import ConfigStore

    groups: set[str] = set()
    store = ConfigStore.instance()
    files = _register(path, path.parent, store, groups)
    for group, _, name in (o.partition("=") for o in overrides):
        if group in groups:
            files += _register(_file_of(path.parent / group, name), path.parent, store, set())
    return files, groups


def _register(path: Path, root: Path, store: Any, groups: set[str]) -> list[Path]:
    """Give Hydra a file and those its defaults list names."""
    from omegaconf import DictConfig, OmegaConf

    if not path.is_file():
        raise KdpError(f"the configuration {path} does not exist")
    try:
        node = OmegaConf.load(path)
    except Exception as error:  # the YAML library has no common base for what it raises
        raise KdpError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise KdpError(f"{path} holds no configuration (a mapping of keys to values)")
    folder = path.parent.relative_to(root).as_posix()
    group = None if folder == "." else folder
    package = "_global_" if path.read_text().startswith("# @package _global_") else None
    store.store(name=path.stem, node=node, group=group, package=package)
    files = [path]
    for entry in node.get("defaults", []):
        pairs = [(None, entry)] if isinstance(entry, str) else list(entry.items())
        for choice, name in pairs:
            if name == "_self_":
                continue
            if choice:
                groups.add(choice)
            files += _register(_file_of(path.parent / (choice or ""), name), root, store, groups)
    return files


def _file_of(folder: Path, name: str) -> Path:
    """The file that a defaults list means by a name."""
    other = folder / f"{name}.yaml"
    return other if other.exists() else folder / f"{name}.yml"
