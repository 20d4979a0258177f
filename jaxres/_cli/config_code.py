"""Mistakes of a configuration file, and which of the functions that it names may become code."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .._sweep.trust import Trust, is_trusted, load_function


class ConfigError(ValueError):
    """Everything that is wrong with a file, as (path, message)."""

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("\n".join(f"{path}: {message}" for path, message in problems))


def said(error: ValueError) -> str:
    """A message without the argument's name, for where its path stands before it."""
    return re.sub(r"^Argument `[^`]*` ", "", str(error))


@dataclass(frozen=True)
class Code:
    """Which functions a file may bring in.

    - `trust`: `True`, or the modules that may be imported; the package's own models need no trust.
    - `store`: the folder that names the functions, from which nothing is imported.
    - `skip`: leave out what is not trusted, instead of refusing it: for a look at the file.
    """

    trust: Trust = False
    store: Path | None = None
    skip: bool = False

    def leaves_out(self, name: str | None) -> bool:
        """Whether a function is named that `load` skips."""
        return self.skip and name is not None and not is_trusted(name, self.trust)

    def load(self, name: str, place: str) -> Callable | None:
        """The function `module:name`; None if it is skipped."""
        if self.leaves_out(name):
            return None
        try:
            return load_function(name, trust=self.trust, place=place, store=self.store)
        except ValueError as error:
            raise ConfigError([(place, said(error))]) from error
