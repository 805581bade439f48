"""Isolated import of Ultralytics, an optional package under AGPL-3.0, on first use.

Its import probes the network, writes a settings folder into the user's home, changes the number of
threads and print options of the whole process, and replaces functions of torch, OpenCV and Pillow.
Here it does none of that: a command must compute and print the same whether or not a detector was
loaded before.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from packaging.specifiers import SpecifierSet
from PIL import Image

from kdp.errors import KdpError
from kdp.temporary import temporary_folder

NEEDED = "detection needs ultralytics: pip install 'ultralytics>=8.4.140,<8.5' (AGPL-3.0)"
VERSIONS = SpecifierSet(">=8.4.140,<8.5", prereleases=True)
SETTINGS = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "False"}
FOLDER = "YOLO_CONFIG_DIR"
REPLACED = ((Image, "open"), (torch, "save"), (cv2, "imread"), (cv2, "imwrite"), (cv2, "imshow"))
"""Functions of other libraries that Ultralytics replaces for the whole process."""


def import_ultralytics(name: str = "") -> Any:
    """Import Ultralytics or a module of it: `import_ultralytics("nn.tasks").DetectionModel`.

    A module that the program imported itself is returned as it is.

    Args:
        name: module name without `ultralytics.`.

    Raises:
        KdpError: Ultralytics is missing or of a version that kdp was not tested with.
    """
    full = f"ultralytics.{name}" if name else "ultralytics"
    if full in sys.modules and sys.modules[full] is not None:
        return sys.modules[full]
    try:
        fits = importlib.metadata.version("ultralytics") in VERSIONS
    except importlib.metadata.PackageNotFoundError as error:
        raise KdpError(NEEDED) from error
    if not fits:
        raise KdpError(NEEDED)
    # Its classes hold tensors, which an import on the meta device would leave there for good.
    with _process_state_kept(), torch.device("cpu"):
        try:
            return importlib.import_module(full)
        except ImportError as error:
            raise KdpError(NEEDED) from error


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """Prepare the environment for the import, and restore the state of the process after it.

    The YOLO_ variables stay set: data-loading workers import Ultralytics again and must find them.
    """
    if "ultralytics" not in sys.modules:
        os.environ.update(SETTINGS)
        if FOLDER not in os.environ:
            os.environ[FOLDER] = _temporary_folder()
    environment = dict(os.environ)
    functions = [(where, name, getattr(where, name)) for where, name in REPLACED]
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    printing = np.get_printoptions()
    try:
        yield
    finally:
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        np.set_printoptions(**printing)
        for where, name, function in functions:
            setattr(where, name, function)


def _temporary_folder() -> str:
    """A folder that is deleted when this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return str(stack.enter_context(temporary_folder()))
