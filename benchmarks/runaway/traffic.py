"""What real traffic looks like: quantiles in whole numbers, so that a draw is the same on every machine.

Each table has 21 quantiles, 0 % to 100 % in steps of 5 %. ``CODE`` and ``CONVERSATION``: AzureLLMInferenceDataset2023
(Azure/AzurePublicDataset, CC-BY 4.0; 8,819 and 19,366 requests). ``AGENT``: 100 runs of a tool-using agent on gpt-4o
(sierra-research/tau-bench, airline, MIT), bytes divided by 4 to give tokens. Latencies: a first token after 0.3 to 3 s and 8 to
30 ms a token, the range that providers' status pages and public latency boards show; no trace of ours stands behind them."""

from __future__ import annotations

from random import Random
from typing import Final

Quantiles = tuple[int, ...]

CODE_CONTEXT: Final[Quantiles] = (
    3, 75, 147, 232, 385, 578, 770, 938, 1075, 1261, 1469, 1690, 1909, 2163, 2433, 2744, 3192, 3919, 5186, 7302, 7437,
)  # fmt: skip
CODE_OUTPUT: Final[Quantiles] = (6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 1899)
CONVERSATION_CONTEXT: Final[Quantiles] = (
    2, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097, 1130, 1189, 1315, 1876, 2734, 4083, 14050,
)  # fmt: skip
CONVERSATION_OUTPUT: Final[Quantiles] = (
    7, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395, 400, 411, 424, 451, 1000,
)  # fmt: skip
AGENT_PROMPT: Final[Quantiles] = (
    1582, 1584, 1587, 1587, 1587, 1589, 1590, 1591, 1592, 1593, 1595, 1596, 1597, 1598, 1599, 1601, 1605, 1608, 1611, 1615, 1633,
)  # fmt: skip
AGENT_OUTPUT: Final[Quantiles] = (
    4, 11, 12, 12, 12, 14, 19, 30, 35, 43, 49, 54, 59, 65, 72, 80, 92, 104, 120, 151, 311,
)  # fmt: skip
TOOL_RESULT: Final[Quantiles] = (
    0, 0, 0, 1, 4, 13, 78, 152, 157, 157, 169, 172, 174, 183, 192, 207, 211, 230, 241, 314, 1690,
)  # fmt: skip
AGENT_TURNS: Final[Quantiles] = (4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12, 12, 14, 15, 16, 17, 18, 20, 23, 30)
FIRST_TOKEN_MS: Final[Quantiles] = (
    300, 340, 370, 400, 430, 460, 490, 520, 550, 590, 630, 680, 740, 800, 880, 980, 1100, 1280, 1600, 2100, 3000,
)  # fmt: skip
TOKEN_US: Final[Quantiles] = (
    8000, 8600, 9200, 9700, 10200, 10800, 11400, 12000, 12600, 13200, 13900, 14600, 15400, 16300, 17300, 18400, 19700, 21300,
    23300, 26000, 30000,
)  # fmt: skip
TOOL_MS: Final[Quantiles] = (
    20, 30, 40, 55, 70, 90, 110, 130, 160, 190, 230, 280, 340, 420, 520, 650, 850, 1200, 1900, 3400, 9000,
)  # fmt: skip


def draw(rng: Random, table: Quantiles) -> int:
    """One value, interpolated between two quantiles in whole numbers."""
    place = rng.randrange(20_000)
    below, part = divmod(place, 1_000)
    low, high = table[below], table[below + 1]
    return low + (high - low) * part // 1_000


def reply_us(rng: Random, tokens: int) -> int:
    """How long a reply of so many tokens takes."""
    return draw(rng, FIRST_TOKEN_MS) * 1_000 + draw(rng, TOKEN_US) * tokens
