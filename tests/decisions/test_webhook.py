"""Webhooks on a real receiver: signed, repeated when it is busy, and no more when it refuses."""

import json

import pytest

from stream.decisions.book import Page
from stream.decisions.decision import Undone
from stream.decisions.telling import content_of, signature
from stream.decisions.webhook import Delivery, Webhook
from tests.decisions.makers import a_decision
from tests.decisions.receiver import SECRET, ReceiverServer, is_authentic
from tests.services.process import free_port

PAGE = Page(a_decision())


def send(url: str, page: Page = PAGE, secret: str = SECRET) -> Delivery:
    webhook = Webhook(url, secret)
    try:
        return webhook.send(page)
    finally:
        webhook.close()


def test_a_receiver_can_check_who_sent_it_and_what_it_says() -> None:
    with ReceiverServer() as receiver:
        assert send(receiver.url) == Delivery(is_taken=True, is_final=True, how="204")
    (received,) = receiver.received
    assert received.authentic
    assert received.key == "ranker/ctr-worse/new/1"
    assert received.body["event"] == "decided"
    assert received.body["as_of"] == "2025-01-01T12:00:00.000Z"
    assert received.body["figures"]["value"] == 0.02


def test_a_wrong_secret_shows() -> None:
    with ReceiverServer() as receiver:
        send(receiver.url, secret="another")
    assert not receiver.received[0].authentic


def test_the_signature_is_what_the_docs_say() -> None:
    content = content_of(PAGE)
    headers = {"Liftstream-Timestamp": "1", "Liftstream-Signature": f"sha256={signature(SECRET, 1, content)}"}
    assert not is_authentic(headers, content)  # right, but old
    assert len(signature(SECRET, 1, content)) == 64


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_receiver_gets_it_again_with_the_same_key(status: int) -> None:
    with ReceiverServer(status) as receiver:
        assert send(receiver.url).is_taken
    assert [received.key for received in receiver.received] == ["ranker/ctr-worse/new/1"] * 2


@pytest.mark.parametrize("status", [302, 400, 401, 410])
def test_a_refusal_is_final(status: int) -> None:
    with ReceiverServer(status) as receiver:
        assert send(receiver.url) == Delivery(is_taken=False, is_final=True, how=str(status))
    assert len(receiver.received) == 1


def test_a_receiver_that_is_away_is_for_later() -> None:
    delivery = send(f"http://127.0.0.1:{free_port()}/hook")
    assert (delivery.is_taken, delivery.is_final) == (False, False)


def test_an_undoing_has_a_key_of_its_own() -> None:
    with ReceiverServer() as receiver:
        send(receiver.url, Page(a_decision(), Undone("ann", "a known outage", 5)))
    (received,) = receiver.received
    assert received.key == "ranker/ctr-worse/new/1/undo"
    assert (received.body["event"], received.body["undone"]["by"]) == ("undone", "ann")
    assert json.dumps(received.body["figures"]["lift"]) == "null"
