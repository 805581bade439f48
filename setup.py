"""Puts the shipped configurations and weights into the wheel; all else is in pyproject.toml."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = runpy.run_path("kdp/shipped.py")
FILES = [
    *(f"configs/{name}" for name in SHIPPED["CONFIGS"]),
    *(f"weights/{name}" for name in SHIPPED["WEIGHTS"]),
    SHIPPED["SCHEMA"],
]


class BuildWithShippedFiles(build_py):
    """Copies the listed files into `kdp/_shipped`; an editable install reads the repository's."""

    def run(self) -> None:
        super().run()
        # What an earlier build left there would get into the wheel too.
        shutil.rmtree(Path(self.build_lib) / "kdp" / "_shipped", ignore_errors=True)
        if not self.editable_mode:
            for name, target in self._shipped().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(name, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *FILES]

    def get_outputs(self, *arguments: Any, **options: Any) -> list[str]:
        return [*super().get_outputs(*arguments, **options), *self._shipped().values()]

    def _shipped(self) -> dict[str, str]:
        folder = Path(self.build_lib) / "kdp" / "_shipped"
        return {name: str(folder / name) for name in FILES}


setup(cmdclass={"build_py": BuildWithShippedFiles})
