"""Turn errors of Hydra and OmegaConf into one line for the user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from lazyexp.config.paths import CONF
from lazyexp.errors import UserError


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise UserError, in one line, for whatever Hydra raises inside. Hydra meets odd words with odd exceptions."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(
            error, MissingConfigException
        ):  # a missing file of Hydra's is both
            raise
        raise UserError(_explain(error)) from None


def _explain(error: Exception) -> str:
    if isinstance(error, MissingConfigException):
        group, name = os.path.split(error.missing_cfg_file or "")
        choices = ", ".join(error.options or sorted(file.stem for file in (CONF / group).glob("*.yaml")))
        return f"{group}={name}: no such choice; must be one of {choices or '(none)'}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not of the form key=value ({_lines(error)})"
    text = _lines(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text = f"{text}: {_lines(error.__cause__)}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return f"{unknown[1]}: unknown key; see lazyexp --help"
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"these settings cannot be composed ({type(error).__name__}: {text}); see lazyexp --help"
    return text


def _lines(error: BaseException) -> str:
    """All lines of an error as one, without those that name OmegaConf's internals."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("object_type=", "reference_type=", "full_key:"))]
    keys = [line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")]
    text = "; ".join(kept) or type(error).__name__
    return f"{keys[0]}: {text}" if keys and keys[0] and keys[0] not in text else text
