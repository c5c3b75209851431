"""The picture in docs/ is drawn from a trace of the example, and shows what the example does now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.tidy import rules


def rows(svg: Path) -> list[tuple[str, str]]:
    """Names and words, in order; times and places are of the run."""
    texts = [text.text or "" for text in ElementTree.parse(svg).getroot().iter("{http://www.w3.org/2000/svg}text")][3:]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_drawing_again_gives_the_same_rows(tmp_path: Path) -> None:
    drawn = tmp_path / "trace.svg"
    subprocess.run(
        [sys.executable, str(rules.ROOT / "integrations" / "opentelemetry" / "draw.py"), str(drawn)],
        env={**os.environ, "PYTHONPATH": str(rules.ROOT)}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    found, kept = rows(drawn), rows(rules.ROOT / "docs" / "trace.svg")
    said = [row for row in found if not row[0].startswith("agentbudget.owner")]
    assert said == [
        row for row in kept if not row[0].startswith("agentbudget.owner")
    ]  # how often the owner is asked may vary
    assert [name for name, _ in said][:2] == ["agentbudget.session", "agentbudget.step gpt-5-mini"]
    assert any(re.match("denied: session_budget", words) for _, words in said)
    assert {name for name, _ in found} >= {"agentbudget.owner OpenSession", "agentbudget.owner CloseSession"}
