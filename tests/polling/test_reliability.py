"""Webhooks that do not come are no longer waited for, until one comes again."""

from __future__ import annotations

from fluxwerk.polling.reliability import MISSES, WebhookReliability


def test_webhooks_are_trusted_until_several_in_a_row_are_missed():
    reliability = WebhookReliability()
    for missed in range(MISSES):
        assert reliability.is_trusted
        assert repr(reliability) == f"WebhookReliability({missed} webhooks missed in a row)"
        reliability.note_ending(announced=False)
    assert not reliability.is_trusted
    reliability.note_ending(announced=True)
    assert reliability.is_trusted
