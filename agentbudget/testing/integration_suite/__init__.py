"""The tests that every integration of agentbudget passes, against a fake of the providers' HTTP APIs on the loopback.

In a test file of the integration, give the adapter and import the tests::

    import pytest
    from agentbudget.testing.integration_suite import *  # noqa: F403

    @pytest.fixture
    def adapter():
        return MyAdapter()  # see ``Adapter``: call, acall, stream, astream, nested, doubled; of an SDK's client ``ClientAdapter``

``adapter`` may be parametrized. What a framework cannot do stands in ``Adapter.cannot`` with its reason and is skipped; every
test also proves that nothing stays held, that the ledger is sound, and that billed <= booked <= billed + unknown, by the
fake's own bill. Needs pytest.
"""

from agentbudget.testing.integration_suite.adapter import Adapter, Ask, How
from agentbudget.testing.integration_suite.calls import (
    test_a_call_is_charged_what_it_was_billed,
    test_a_call_that_does_not_fit_is_refused_before_it_is_made,
    test_a_call_that_is_guarded_twice_is_charged_once,
    test_a_cancelled_call_is_charged_and_holds_nothing,
    test_a_latched_session_refuses_what_would_fit,
    test_a_loop_that_swallows_refusals_gets_no_further,
    test_a_provider_that_cannot_be_reached_is_free,
    test_a_retry_after_a_refusal_is_charged_once,
    test_a_retry_after_a_timeout_is_charged_for_both,
    test_a_timeout_after_dispatch_is_charged,
    test_an_abort_passes_every_except_exception,
    test_an_error_before_any_work_is_free,
    test_calls_at_once_never_pass_the_budget,
    test_the_cap_that_is_sent_is_the_cap_that_is_held,
    test_what_a_tool_calls_is_charged_to_the_same_session,
    test_what_a_tool_calls_is_refused_by_the_same_budget,
)
from agentbudget.testing.integration_suite.client import ClientAdapter
from agentbudget.testing.integration_suite.streams import (
    test_a_cancelled_stream_is_charged_its_input_and_what_came,
    test_a_stream_is_charged_what_it_was_billed,
    test_a_stream_is_cut_before_it_passes_what_can_be_held,
    test_a_stream_is_settled_before_its_last_item_is_passed_on,
    test_a_stream_that_breaks_off_is_charged_its_input_and_what_came,
    test_a_stream_that_is_left_is_charged_its_input_and_what_came,
    test_a_stream_that_nobody_iterates_holds_nothing,
    test_a_stream_that_passes_its_cap_extends_its_hold,
    test_a_stream_that_states_no_usage_is_never_free,
    test_a_stream_that_states_running_totals_is_charged_the_last,
    test_a_stream_that_the_collector_finds_is_charged,
)
from agentbudget.testing.integration_suite.world import _applies, ask, customer, provider, session

__all__ = [  # noqa: RUF022 - the tests first; the fixtures that they need; the words of an adapter
    "test_a_call_is_charged_what_it_was_billed",
    "test_a_call_that_does_not_fit_is_refused_before_it_is_made",
    "test_a_call_that_is_guarded_twice_is_charged_once",
    "test_a_cancelled_call_is_charged_and_holds_nothing",
    "test_a_cancelled_stream_is_charged_its_input_and_what_came",
    "test_a_latched_session_refuses_what_would_fit",
    "test_a_loop_that_swallows_refusals_gets_no_further",
    "test_a_provider_that_cannot_be_reached_is_free",
    "test_a_retry_after_a_refusal_is_charged_once",
    "test_a_retry_after_a_timeout_is_charged_for_both",
    "test_a_stream_is_charged_what_it_was_billed",
    "test_a_stream_is_cut_before_it_passes_what_can_be_held",
    "test_a_stream_is_settled_before_its_last_item_is_passed_on",
    "test_a_stream_that_breaks_off_is_charged_its_input_and_what_came",
    "test_a_stream_that_is_left_is_charged_its_input_and_what_came",
    "test_a_stream_that_nobody_iterates_holds_nothing",
    "test_a_stream_that_passes_its_cap_extends_its_hold",
    "test_a_stream_that_states_no_usage_is_never_free",
    "test_a_stream_that_states_running_totals_is_charged_the_last",
    "test_a_stream_that_the_collector_finds_is_charged",
    "test_a_timeout_after_dispatch_is_charged",
    "test_an_abort_passes_every_except_exception",
    "test_an_error_before_any_work_is_free",
    "test_calls_at_once_never_pass_the_budget",
    "test_the_cap_that_is_sent_is_the_cap_that_is_held",
    "test_what_a_tool_calls_is_charged_to_the_same_session",
    "test_what_a_tool_calls_is_refused_by_the_same_budget",
    "_applies", "ask", "customer", "provider", "session",
    "Adapter", "Ask", "ClientAdapter", "How",
]  # fmt: skip
