"""The model provider: it tokenises what it is sent and what it writes, and bills by its own price list. The ground truth.

Nothing of agentbudget is used here, so that "billed" and "booked" are worked out twice. Prices are whole nanodollars a token,
as the providers published them in November 2026 for these models; a credit is a US dollar."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from random import Random
from typing import Final, NamedTuple

from msgspec import Struct

MESSAGE_TOKENS: Final = 4
"""What a chat template puts around a message, and once more before the reply."""
MESSAGE_BYTES: Final = 34
"""``{"role":"assistant","content":""},``: the longest that JSON puts around a message's text."""
CACHE_LEAST, CACHE_STEP = 1_024, 128
"""A prefix is cached from 1,024 tokens on, in steps of 128 (OpenAI's prompt caching)."""


class Price(NamedTuple):
    """Nanodollars a token. ``cliff``: more input tokens than this, and the whole call is billed at ``above``."""

    input: int
    cached: int
    output: int
    cliff: int = 0
    above: tuple[int, int, int] | None = None

    def at(self, input_tokens: int) -> tuple[int, int, int]:
        """Input, cached input, output."""
        if self.above is not None and input_tokens > self.cliff:
            return self.above
        return self.input, self.cached, self.output


PRICES: Final = {
    "gpt-5-mini": Price(250, 25, 2_000),
    "gpt-4o": Price(2_500, 1_250, 10_000),
    "gpt-5": Price(1_250, 125, 10_000),
    "gemini-2.5-pro": Price(1_250, 125, 10_000, 200_000, (2_500, 250, 15_000)),
}

_WORDS: Final = re.compile(r" ?[a-z]{1,5}|[.,]|\n")


def tokenise(text: str) -> list[str]:
    """The provider's tokenizer: pieces of at most five letters with the blank before them, and marks."""
    return _WORDS.findall(text)


class _Corpus:
    """A long text that everything said is a part of, so that it is tokenised once."""

    @cached_property
    def tokens(self) -> list[str]:
        rng = Random("corpus")
        parts = ("ta", "ri", "no", "sel", "ka", "mo", "pen", "du", "li", "ver", "an", "os", "tri", "ge", "ch")
        words = ["".join(rng.choice(parts) for _ in range(rng.choice((1, 1, 2, 2, 2, 3)))) for _ in range(12_000)]
        return tokenise(
            "".join(f" {word}{',' if at % 9 == 8 else '.' if at % 17 == 16 else ''}" for at, word in enumerate(words))
        )

    @cached_property
    def ends(self) -> list[int]:
        """Bytes up to each token."""
        total, ends = 0, [0]
        for token in self.tokens:
            total += len(token)
            ends.append(total)
        return ends

    def place_of(self, byte: int) -> int:
        return bisect_right(self.ends, byte) - 1


CORPUS: Final = _Corpus()


class Text(Struct, frozen=True):
    """``tokens`` tokens of the corpus from ``start`` on, around its end where it is longer."""

    start: int
    tokens: int

    @property
    def bytes(self) -> int:
        ends = CORPUS.ends
        size = len(ends) - 1
        turns, rest = divmod(self.tokens, size)
        last = self.start + rest
        part = ends[last] - ends[self.start] if last <= size else ends[size] - ends[self.start] + ends[last - size]
        return turns * ends[size] + part

    def read(self) -> str:
        """The text itself."""
        tokens, size = CORPUS.tokens, len(CORPUS.tokens)
        return "".join(tokens[(self.start + at) % size] for at in range(self.tokens))


def text(rng: Random, tokens: int) -> Text:
    """Some text of so many tokens."""
    return Text(rng.randrange(len(CORPUS.tokens)), tokens)


class Prompt(Struct, frozen=True):
    """Messages as they are sent; only ever added to, so the counts are kept with it."""

    texts: tuple[Text, ...] = ()
    tokens: int = MESSAGE_TOKENS
    bytes: int = 2

    def plus(self, *texts: Text) -> Prompt:
        return Prompt(
            self.texts + texts,
            self.tokens + sum(one.tokens + MESSAGE_TOKENS for one in texts),
            self.bytes + sum(one.bytes + MESSAGE_BYTES for one in texts),
        )


class Served(Struct, frozen=True):
    """What the provider did and what it bills. ``cached`` is part of ``input``, ``reasoning`` of ``output``."""

    input: int
    cached: int
    output: int
    reasoning: int
    billed: int


def serve(model: str, prompt: Prompt, output: int, *, reasoning: int = 0, cached_prefix: int = 0) -> Served:
    """Bill a reply of ``output`` tokens. ``cached_prefix``: tokens at the prompt's start that were sent before."""
    prefix = min(cached_prefix, prompt.tokens)
    cached = prefix // CACHE_STEP * CACHE_STEP if prefix >= CACHE_LEAST else 0
    plain, reused, written = PRICES[model].at(prompt.tokens)
    billed = (prompt.tokens - cached) * plain + cached * reused + output * written
    return Served(prompt.tokens, cached, output, min(reasoning, output), billed)


def worst(model: str, input_tokens: int, output_tokens: int) -> int:
    """The most that a call of at most so many tokens can be billed: what a careful caller sets aside before it."""
    plain, _, written = PRICES[model].at(input_tokens)
    return input_tokens * plain + output_tokens * written
