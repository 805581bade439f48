"""Where a configuration is found: as written, in `configs/` of the current folder, in the package.

Overlays, the files that a choice GROUP=NAME adds, are no configurations. They are looked up by
group and name, beside the including file or in `overlays/` of the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from kdp.errors import KdpError, join_names
from kdp.files import real_path, why_no_file
from kdp.log import log_once
from kdp.shipped import CONFIGS, OVERLAYS, shipped_configs

SUFFIXES = (".yml", ".yaml")
LOCAL = Path("configs")
"""Of the current folder."""


@dataclass(frozen=True)
class Level:
    """One place that holds configurations.

    Attributes:
        root: the folder.
        files: the configurations and overlays in it, relative to it.
    """

    root: Path
    files: tuple[PurePath, ...]

    @property
    def configs(self) -> list[PurePath]:
        """The files that are no overlays."""
        return [file for file in self.files if file.parts[0] != OVERLAYS]

    def matches(self, name: PurePath) -> list[Path]:
        """The configurations that match a name, with or without their sub-folders."""
        endings = _spellings(name)
        return [
            self.root / file
            for file in self.configs
            if any(file.parts[-len(name.parts) :] == ending.parts for ending in endings)
        ]


def levels() -> list[Level]:
    """`configs/` of the current folder, then the package's, unless they are the same."""
    package = shipped_configs()
    here = Level(LOCAL, tuple(_yaml_files(LOCAL)))
    if package.is_dir() and LOCAL.is_dir() and package.samefile(LOCAL):
        return [here]
    return [here, Level(package, tuple(PurePath(name) for name in CONFIGS))]


def find_config(path: Path) -> Path:
    """The file of `--config`; logs the path if it is not the path as written.

    Raises:
        KdpError: no file or several files match, or the file is an overlay.
    """
    if path.is_file():
        return _no_overlay(path)
    if path.is_absolute() or ".." in path.parts:
        raise KdpError(f"the configuration {path} {why_no_file(path)}")
    # Shipped files used to lie in configs/ itself: configs/NAME still finds them.
    name = PurePath(*path.parts[path.parts[0] == LOCAL.name :])
    match = _first_match(name)
    if match:
        log_once(f"configuration: {match}")
        return match
    known = sorted({file.name for level in levels() for file in level.configs})
    nearest = get_close_matches(path.name, known, n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "`kdp configs` lists them"
    raise KdpError(f"the configuration {path} {why_no_file(path)}; {hint}")


def find_default(name: str, including: Path) -> Path:
    """The configuration of an entry of a defaults list; never the including file itself.

    Raises:
        KdpError: no file or several files match.
    """
    for spelling in _spellings(PurePath(name)):
        beside = including.parent / spelling
        if beside.is_file() and not beside.samefile(including):
            return beside
    match = _first_match(PurePath(name), including)
    if match:
        return match
    if any((including.parent / spelling).is_file() for spelling in _spellings(PurePath(name))):
        raise KdpError(f"{including}: the default {name!r} is this file itself; remove it")
    files = " and ".join(str(spelling) for spelling in _spellings(PurePath(name)))
    raise KdpError(f"{including}: the default {name!r} does not exist (looked for {files})")


def find_overlay(group: str, name: str, including: Path) -> Path:
    """The overlay of a choice GROUP=NAME.

    Raises:
        KdpError: no such overlay; lists the available ones.
    """
    folders = _overlay_folders(group, including)
    for folder in folders:
        for spelling in _spellings(PurePath(name)):
            if (folder / spelling).is_file():
                return folder / spelling
    known = {file.stem for folder in folders for file in _yaml_files(folder)}
    names = (
        f"available: {join_names(sorted(known))}" if known else "no overlay of this group exists"
    )
    raise KdpError(f"{including}: {group}={name} does not exist; {names}")


def overlay_groups(including: Path) -> set[str]:
    """The groups that have overlays."""
    roots = [including.parent, *(level.root for level in levels())]
    folders = (folder for root in roots for folder in (root / OVERLAYS).glob("*"))
    return {folder.name for folder in folders if folder.is_dir()}


def _first_match(name: PurePath, including: Path | None = None) -> Path | None:
    """The configuration of this name on the first level that has one.

    Raises:
        KdpError: several files of that level match.
    """
    for level in levels():
        matches = [
            path for path in level.matches(name) if not (including and path.samefile(including))
        ]
        if len(matches) > 1:
            paths = " and ".join(str(path) for path in matches)
            raise KdpError(f"the configuration {name} is ambiguous: {paths}; give its path")
        if matches:
            return matches[0]
    return None


def _overlay_folders(group: str, including: Path) -> list[Path]:
    """Where the overlays of a group lie, the nearest first."""
    own = including.parent / OVERLAYS / group
    beside = own if own.is_dir() else including.parent / group
    return [beside, *(level.root / OVERLAYS / group for level in levels())]


def _no_overlay(path: Path) -> Path:
    parts = real_path(path).parts
    if len(parts) > 3 and parts[-3] == OVERLAYS:
        raise KdpError(
            f"{path} is an overlay, not a configuration: add it to one by {parts[-2]}={path.stem}"
        )
    return path


def _spellings(name: PurePath) -> list[PurePath]:
    """The possible file names of a name, whose ending is optional."""
    if name.suffix in SUFFIXES:
        return [name]
    return [name.with_name(name.name + suffix) for suffix in SUFFIXES]


def _yaml_files(root: Path) -> list[PurePath]:
    files = (path for path in root.rglob("*") if path.suffix in SUFFIXES)
    return sorted(PurePath(path.relative_to(root)) for path in files)
