"""A fake of the OpenAI and Anthropic HTTP APIs on the loopback: a real server, reached by the real SDKs.

It counts tokens and makes its bill by itself (``words``), with no code of agentbudget, so that what was booked can be compared
with what a provider would have billed. It answers as a test says (``Reply``): fails, stalls, breaks a stream off, states usage
never, twice or as a running total. Standard library only::

    with fake_provider() as provider:
        provider.say(Reply(text="hello"), Reply(status=500))
        client = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="none")
        ...
        assert provider.billed == 12_000  # nanocredits
"""

from agentbudget.testing.provider.server import Call, FakeProvider, fake_provider
from agentbudget.testing.provider.words import Reply, bill, pieces

__all__ = ["Call", "FakeProvider", "Reply", "bill", "fake_provider", "pieces"]
