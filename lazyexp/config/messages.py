"""Turn errors of Hydra and OmegaConf into one line for the user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from lazyexp.config.paths import CONF
from lazyexp.config.quoting import KEY, quoted_word
from lazyexp.config.suggestions import choice_hint, key_hint, wanted
from lazyexp.errors import UserError

SWEEP = "a sweep of several values needs lazyexp -m (in Python: lazyexp.sweep)"
# Lines of errors that name OmegaConf's internals.
INTERNALS = ("object_type=", "reference_type=", "full_key:")


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
        return _unreadable(error.override, _lines(error))
    text = "; ".join(dict.fromkeys(_lines(one) for one in _chain(error)))
    several = re.search(r"Ambiguous value for argument '(.+?)'(?:;|$)|Sweep parameters '(.+)' requires", text)
    if several:
        return _several(several[1] or several[2])
    in_file = re.search(r"In '(\S+)': .*Key '(\w+)' not in", text)
    if in_file:
        group = "" if in_file[1].startswith("sweep/") else f"{in_file[1].partition('/')[0]}."
        return f"{in_file[1]}.yaml: {unknown_key(group + in_file[2])}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1])
    merged = re.match(r"Error merging override \+*([^\s=]+)=(.*?); (?:\1: )?(.*)", text)
    if merged:
        key, value, reason = merged.groups()
        return f"{key}={value}: must be {wanted(key)}" if wanted(key) else f"{key}={value}: {reason}"
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"these settings cannot be composed ({type(error).__name__}: {text}); see lazyexp --help"
    return text.replace(":;", ":")


def unknown_key(key: str) -> str:
    """The error for a key that does not exist."""
    return f"{key}: unknown key{key_hint(key)}; see lazyexp --help"


def _several(word: str) -> str:
    key, _, value = word.partition("=")
    if "(" in value:  # glob(*), range(1,3), choice(a,b)
        return f"{word}: {SWEEP}"
    return (
        f"{word}: several values; {SWEEP}; a list is {key}=[{value}], a text with a comma {quoted_word(key, value)}"
    )


def _unreadable(word: str, reason: str) -> str:
    """The error for a word that Hydra's grammar does not accept."""
    key, equals, value = word.partition("=")
    if not KEY.fullmatch(key) and equals:
        return f"{word}: not of the form key=value; a key has letters, digits and dots, and no space follows it"
    if not equals:
        return f"{word}: not of the form key=value{choice_hint(word)}"
    quoted = quoted_word(key, value)
    if value[:1] in ("[", "{", "'", '"', "(") or not quoted:
        reason = re.sub(r"; See https\S+ for details|; \^|\w+Exception: ", "", reason)
        return f"{word}: not of the form key=value ({reason}); are quotes and brackets complete?"
    characters = re.findall(r"[^\w./:+%@*?|-]|[^\x00-\x7f]", value)
    which = " ".join(dict.fromkeys("space" if one == " " else one for one in characters))
    return f"{word}: a value with such characters ({which}) needs quotes: {quoted}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and the errors that caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _lines(error: BaseException) -> str:
    """All lines of an error as one, without those that name OmegaConf's internals."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(INTERNALS)]
    keys = [line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")]
    text = "; ".join(kept) or type(error).__name__
    return f"{keys[0]}: {text}" if keys and keys[0] and keys[0] not in text else text
