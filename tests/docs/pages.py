"""Reading pages of documentation: their code, and what they point to."""

from __future__ import annotations

import re
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [code for found, code in _FENCE.findall(page.read_text("utf-8")) if found == language]


def broken_links(page: Path) -> list[str]:
    """Relative links of the page that lead to no file."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    targets = [target for target in _LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]
    return [target for target in targets if not (page.parent / target).exists()]
