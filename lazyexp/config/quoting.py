"""Python values as words of Hydra's override grammar. Every override that the program composes is made here."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lazyexp.errors import UserError

# Strings that Hydra's grammar reads as they are, unless they name a constant.
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
CONSTANTS = {"null", "true", "false", "inf", "nan"}
KEY = re.compile(r"(\+{1,2}|~)?[A-Za-z_][\w$-]*([./@:][\w$-]+)*", re.ASCII)


def override(key: str, value: Any) -> str:
    """`key=value` for Hydra, such that Hydra reads exactly `value`: None, a bool, number, string, path, list or dict.

    Strings are literal: `1e3`, `null` and `a,b` stay strings, and `${` starts no interpolation. Raises UserError for
    a key or a value that the grammar cannot express.
    """
    if not KEY.fullmatch(key):
        raise UserError(f"{key}: not a key; see lazyexp --help")
    return f"{key}={quote(value, key)}"


def arguments(words: Sequence[object], settings: Mapping[str, Any]) -> list[str]:
    """Words and keyword arguments of a call from Python, `model__width` for `model.width`, as overrides.

    Raises UserError, also for a key that is given in both ways.
    """
    found: list[str] = []
    for word in words:
        if not isinstance(word, str):
            raise UserError(f'{word!r}: must be a text such as "epochs=1", or a keyword argument such as epochs=1')
        found.append(word)
    keys = {word.partition("=")[0].lstrip("+") for word in found}
    for name, value in settings.items():
        key = name.replace("__", ".")
        if key in keys:
            raise UserError(f"{key}: given twice, as a word and as a keyword argument")
        found.append(override(key, value))
    return found


def quote(value: Any, key: str = "value") -> str:
    """The value alone, as in `override`."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # NumPy
        value = value.item()
    if isinstance(value, range) or getattr(value, "ndim", None) == 1:
        value = [element.item() if hasattr(element, "item") else element for element in value]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        text = os.fsdecode(value)
        if text == "???":  # OmegaConf's mark of a missing value; it has no escape
            raise UserError(f"{key}=???: cannot be the value of a setting")
        return _quote_text(text)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(quote(element, key) for element in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_dict_key(name, key)}:{quote(inner, key)}' for name, inner in value.items())}}}"
    raise UserError(f"{key}={value}: must be null, a bool, a number, a string, a path, a list or a dictionary")


def quoted_word(key: str, text: str) -> str:
    """The override of a literal text as a user types it, on a shell or as a string of Python. Empty: none exists."""
    try:
        word = f"{key}={_quote_text(text)}" if KEY.fullmatch(key) else ""
    except UserError:
        return ""
    if not re.search(r'[\\"`$!]', word):
        return f'"{word}"'
    return shlex.quote(word) if word else ""


def _quote_text(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in CONSTANTS:
        return text
    # OmegaConf: a backslash before ${ makes it literal, and two backslashes before that are one.
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)
    # Hydra: likewise before a quote, and before the end, where the closing quote follows.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def _dict_key(name: object, key: str) -> str:
    if not isinstance(name, str) or not PLAIN.fullmatch(name) or name.lower() in CONSTANTS:
        raise UserError(f"{key}: {name!r} cannot be a key of a dictionary; use letters, digits and any of _ . / -")
    return name
