"""How many input tokens a request may have, before it is sent.

``bound`` is an upper bound: tokenizers of today's providers work on bytes, so a text has at most as many tokens as
UTF-8 bytes. What the bytes cannot show is bounded by the context window (inputs by reference) or by a named constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.errors import InvalidRequest

Estimator: TypeAlias = Literal["bound", "exact", "typical"]

TEMPLATE_TOKENS: Final = 16
"""Around a bare text: the role and message marks of a chat template, which its bytes do not contain (at most 7
today)."""

TOOL_PROMPT_TOKENS: Final = 800
"""Providers put a prompt of their own before tool definitions: several hundred tokens with Anthropic."""

IMAGE_TOKENS: Final = 5_000
"""An inline image costs by its pixels, which good compression hides: the most that large images cost at the big
providers."""

_PICTURES: Final = ("image", "image_url", "input_image", "image_file", "video", "video_url")
_MEDIA: Final = frozenset((*_PICTURES, "audio", "input_audio", "file", "input_file", "document", "media"))
_LINKS: Final = (
    "url",
    "image_url",
    "file_url",
    "video_url",
    "file_uri",
    "fileUri",
    "source",
    "file",
    "file_data",
    "fileData",
)
_STORED: Final = ("previous_response_id", "conversation", "cached_content", "cachedContent", "prompt", "prompt_id")
_SIGNS: Final = re.compile(
    rb'"(f(?:ile_(?:id|uri)|ileUri|unctions")|p(?:revious_response_id|rompt(?:"|_id))'
    rb'|c(?:onversation"|ached_content|achedContent|ontainer_upload)|i(?:tem_reference|mage/|nput_audio)|source_type"'
    rb'|tools"|data:image/|audio["/]|modalities"|[a-z0-9]{2,8}://)'
)
"""What may matter beside the length, each at the start of a JSON string, so that quoting it in a text is no sign. One
pass; words that begin alike are tried as one."""

_NO_REFERENCE: Final = frozenset(
    (b'tools"', b'functions"', b"data:image/", b"image/", b"input_audio", b'audio"', b"audio/", b'modalities"')
)
_AUDIO: Final = frozenset((b"input_audio", b'audio"', b"audio/"))
_CALL_KEYS: Final = ("args", "arguments", "tools", "functions")


class Estimate(Struct, frozen=True):
    """Input tokens, how they were found (``bound`` where ``exact`` does not cover the model), and what they rest on.

    by_reference: part of the input is elsewhere, so ``tokens`` is the context window.  audio: audio prices may apply.
    """

    tokens: int
    method: Estimator
    by_reference: bool = False
    audio: bool = False


def estimate_input(
    request_payload: Any, *, method: Estimator = "bound", model: str | None = None, window: int
) -> Estimate:
    """Estimate the input tokens of a request: a text, bytes, messages, or a whole request body; JSON-like data,
    LangChain messages and pydantic models. Never fails on a payload: what cannot be read holds the ``window`` (tokens).

    Raises :class:`InvalidRequest` for an unknown method.
    """
    if method not in ("bound", "exact", "typical"):
        raise InvalidRequest(f"{method!r} is no estimator: use bound, exact or typical", "method")
    data = serialise(request_payload)
    if data is None:
        return Estimate(window, "bound", by_reference=True, audio=True)
    signs = _SIGNS.findall(data)
    audio = not _AUDIO.isdisjoint(signs)
    if not _NO_REFERENCE.issuperset(signs) and _refers(request_payload, data):
        return Estimate(window, "bound", by_reference=True, audio=audio)
    hidden = _hidden(request_payload, signs)
    if method == "exact" and not audio and hidden < IMAGE_TOKENS:
        exact = _exact(request_payload, data, model)
        if exact is not None:
            return Estimate(min(exact, window), "exact")
    if method == "typical":
        return Estimate(min(-(-len(data) // 2), window), "typical", audio=audio)
    return Estimate(min(len(data) + hidden, window), "bound", audio=audio)


def plain_bound(payload: Any, window: int) -> int | None:
    """:func:`estimate_input` by ``bound`` of a payload that shows no sign of anything beside its length, as nearly every request;
    None for all others."""
    try:
        data = _encode(payload)
    except Exception:  # a foreign object's own code may raise anything
        return None
    if type(payload) is str or type(payload) is bytes or _SIGNS.search(data) is not None:
        return None
    return len(data) if len(data) < window else window


def serialise(payload: Any) -> bytes | None:
    """The payload as bytes, never shorter than what a provider is sent of it; None if it cannot be read."""
    if isinstance(payload, (bytes, bytearray)):
        return bytes(payload)
    try:
        if isinstance(payload, str):
            return payload.encode("utf-8", "surrogatepass")
        return _encode(payload)
    except Exception:  # a foreign object's own code may raise anything; the next form, or the window, stands in for it
        return _as_text(payload)


def _readable(value: Any) -> Any:
    """What stands for an object that msgspec does not know: a message's content, a model's fields, else all of it as
    text."""
    if type(value) in (dict, list, tuple, set, frozenset):
        raise TypeError("a container comes here only as a key, which JSON cannot write")
    if hasattr(value, "content") and hasattr(value, "additional_kwargs"):
        names = ("type", "name", "content", "tool_calls", "invalid_tool_calls", "tool_call_id", "additional_kwargs")
        return {name: found for name in names if (found := getattr(value, name, None))}
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterator):
        raise TypeError("an iterator is consumed by reading it")
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return {"text": str(value), "fields": vars(value)}
    return [str(value), repr(value)]


_encode: Final = msgspec.json.Encoder(enc_hook=_readable).encode


def _as_text(payload: Any) -> bytes | None:
    """Data that is no JSON (odd keys, lone surrogates) as Python writes it, every character as its escape where it must
    be."""
    if not isinstance(payload, (dict, list, tuple, set, frozenset)):
        return None
    try:
        return repr(_plain(payload, 0)).encode("utf-8", "surrogatepass")
    except Exception:  # as above: nothing readable, so the window is held
        return None


_MAX_DEPTH: Final = 64
"""Deepest nesting that is read as text; what lies deeper, or in a circle, holds the window."""


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    return _plain(_readable(value), depth + 1)


def _hidden(payload: Any, signs: list[bytes]) -> int:
    """Tokens that the bytes do not show."""
    hidden = TEMPLATE_TOKENS if isinstance(payload, (str, bytes)) else 0
    if b'tools"' in signs or b'functions"' in signs:
        hidden += TOOL_PROMPT_TOKENS
    return hidden + (signs.count(b"data:image/") + signs.count(b"image/")) * IMAGE_TOKENS


def _refers(payload: Any, data: bytes) -> bool:
    """Whether part of the input is not in the payload. Asked only of the few requests that show a sign of it."""
    if isinstance(payload, str):
        return False  # a text refers to nothing
    try:
        plain = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return True  # no JSON: it cannot be judged, so it is taken to refer
    stored = {name: plain[name] for name in _STORED if plain.get(name)} if isinstance(plain, dict) else {}
    kinds = {name: dict if name == "prompt" else (str, dict) for name in stored}
    return any(isinstance(stored[name], kinds[name]) for name in stored) or _any_reference(plain)


def _any_reference(plain: Any) -> bool:
    waiting = [plain]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if _is_reference(node):
                return True
            is_call = node.get("type") in ("tool_use", "function_call", "tool_call", "function")
            skip = (*_CALL_KEYS, "input") if is_call else _CALL_KEYS
            waiting += [item for key, item in node.items() if key not in skip and isinstance(item, (dict, list))]
    return False


def _is_reference(node: dict[str, Any]) -> bool:
    if any(isinstance(node.get(name), str) and node[name] for name in ("file_id", "file_uri", "fileUri")):
        return True
    kind = node.get("type")
    if kind in ("item_reference", "container_upload") or node.get("source_type") in ("id", "url"):
        return True
    is_media = kind in _MEDIA or "image_url" in node
    return is_media and any(_links_out(node.get(name)) for name in _LINKS)


def _links_out(link: Any) -> bool:
    if isinstance(link, dict):
        return any(_links_out(item) for item in link.values())
    return isinstance(link, str) and "://" in link[:12]


_O200K: Final = ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-6", "o1", "o3", "o4", "chatgpt-4o", "gpt-oss")
_CL100K: Final = ("gpt-4", "gpt-3.5", "text-embedding-3", "text-embedding-ada-002")
MESSAGE_TOKENS: Final = 4
"""Marks around each message of OpenAI's chat template, and as many to open the reply (OpenAI cookbook, counting
tokens)."""


def _exact(payload: Any, data: bytes, model: str | None) -> int | None:
    """Tokens by the model's own tokenizer (the ``tokenizers`` extra), or None where it does not cover model or
    content."""
    tokenizer = _tokenizer_of(model)
    if tokenizer is None:
        return None
    if isinstance(payload, str):
        return int(tokenizer.count(payload)) + 2 * MESSAGE_TOKENS
    try:
        plain = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
    rest = {}
    if isinstance(plain, dict) and isinstance(plain.get("messages"), list):
        rest = {name: value for name, value in plain.items() if name in ("tools", "functions", "response_format")}
        plain = plain["messages"]
    if not isinstance(plain, list):
        return int(tokenizer.count(data.decode())) + 2 * MESSAGE_TOKENS
    texts = [text for message in plain for text in (*_texts(message), *_marks(message))]
    if rest:
        texts.append(msgspec.json.encode(rest).decode())
    tools = TOOL_PROMPT_TOKENS // 10 if rest else 0  # OpenAI's own tool preamble is a few dozen tokens
    counted: int = sum(tokenizer.count(text) for text in texts)
    return counted + MESSAGE_TOKENS * (len(plain) + 1) + tools


def _texts(node: Any) -> Iterator[str]:
    """Every text in a message; keys of tool arguments count too, since arguments are sent as JSON."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key in _CALL_KEYS and not isinstance(item, str):
                yield msgspec.json.encode(item).decode()
            else:
                yield from _texts(item)
    elif node is not None:
        yield str(node)


def _marks(message: Any) -> tuple[str, ...]:
    """A name and each tool call have marks of their own."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return ("call " * 8,) * len(calls) if isinstance(calls, list) else ()


@cache
def _tokenizers() -> dict[str, Any]:
    try:
        from rs_bpe import openai
    except ImportError:
        return {}
    return {"o200k": openai.o200k_base(), "cl100k": openai.cl100k_base()}


def _tokenizer_of(model: str | None) -> Any:
    name = (model or "").lower().rpartition("/")[2].rpartition(":")[2]
    vocabulary = "o200k" if name.startswith(_O200K) else "cl100k" if name.startswith(_CL100K) else None
    return _tokenizers().get(vocabulary) if vocabulary else None
