"""Import paths: from a dotted name to a class or function, built-in or custom.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lazyexp.config.paths import PACKAGE
from lazyexp.errors import UserError
from lazyexp.utils.memory import is_out_of_memory

# Environment variable that asks for tracebacks of custom code.
TRACEBACK = "LAZYEXP_TRACEBACK"


class Registry(Mapping[str, Any]):
    """Built-in parts by name, imported on access."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths

    def __getitem__(self, name: str) -> Any:
        return resolve(self.paths[name], name, custom=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def resolve(path: str, key: str, custom: bool = True) -> Any:
    """The class or function at an import path such as `my_nets.ResNet8`.

    `key` is the setting with the path. A `custom` part is also looked for in the current directory. Raises UserError
    if it is not found.
    """
    words = path.split(".") if isinstance(path, str) else []
    if len(words) < 2 or not all(word.isidentifier() for word in words):
        raise UserError(f"{key}={path}: must be an import path such as my_module.MyClass")
    here = os.getcwd()
    if custom and here not in sys.path:
        sys.path.append(
            here
        )  # last, so that no file there replaces a library; it stays, for later imports of the part
        importlib.invalidate_caches()
    module, rest = _import(words, key)
    found: Any = module
    for word in rest:
        if not hasattr(found, word):
            file = getattr(module, "__file__", None) or "a package"
            raise UserError(f"{key}={path}: {module.__name__} ({file}) has no {'.'.join(rest)}")
        found = getattr(found, word)
    if not callable(found):
        raise UserError(f"{key}={path}: is a {type(found).__name__}, not a class or a function")
    return found


def _import(words: list[str], key: str) -> tuple[ModuleType, list[str]]:
    """The longest prefix of the path that is a module, and the remaining words."""
    path = ".".join(words)
    for end in range(len(words) - 1, 0, -1):
        name = ".".join(words[:end])
        try:
            return importlib.import_module(name), words[end:]
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise UserError(f"{key}={path}: importing {name} failed: {describe(error)}") from None
        except (Exception, SystemExit) as error:
            raise UserError(f"{key}={path}: importing {name} failed: {describe(error)}") from None
    raise UserError(f"{key}={path}: no module {words[0]} in {os.getcwd()} or among the installed packages")


def source(found: Any, path: str) -> dict[str, str | None]:
    """The identity of a custom part: its import path, its source file and the SHA-256 of that file."""
    file, digest = _file(found)
    return {"target": path, "file": file, "sha256": digest}


@cache
def _file(found: Any) -> tuple[str | None, str | None]:
    # Cached: the imported code counts, even if the file changes later.
    try:
        file = inspect.getsourcefile(inspect.unwrap(found)) or ""
        return file, hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (TypeError, OSError):
        pass
    try:  # a cell of a notebook
        return None, hashlib.sha256(inspect.getsource(found).encode()).hexdigest()
    except (TypeError, OSError):
        return None, None


def describe(error: BaseException) -> str:
    """An exception in one line: type, message, and the last line of code outside this package and its libraries.

    With the environment variable LAZYEXP_TRACEBACK=1 its traceback is printed to stderr.
    """
    if os.environ.get(TRACEBACK, "0") not in ("", "0"):
        traceback.print_exception(error)
    message = " ".join(str(error).split())[:300]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_custom(frame.filename)]
    if not frames:
        return text
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno}; {TRACEBACK}=1 shows the traceback)"


def _is_custom(file: str) -> bool:
    """Whether a source file belongs neither to this package nor to a library."""
    path = Path(file)
    library = {"site-packages", "dist-packages"} & set(path.parts) or file.startswith("<")
    return not library and PACKAGE not in path.parents and Path(os.__file__).parent not in path.parents


@contextmanager
def attribute_errors(what: str) -> Iterator[None]:
    """Raise UserError, in one line that names the custom part `what`, for any exception inside.

    OSError, MemoryError and "out of memory" pass: the caller handles them.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{what}: {describe(error)}") from error
