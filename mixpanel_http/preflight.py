"""One request that proves the credentials before many workers start, and imports nothing."""

from __future__ import annotations

from mixpanel_http.answers import of_one_record
from mixpanel_http.client import ImportClient
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import Action
from mixpanel_http.receipts import Stop

# No event: with `strict=1` it is refused after the credentials are checked, and nothing is stored.
_NO_EVENT = b"{}"


def refusal(destination: Destination) -> Stop | None:
    """Returns why Mixpanel takes nothing from these credentials, or None where it does not say so.

    Trouble that passes proves nothing either way: the workers ride it out. Only `/import` can be asked like
    this, also for tokens that go to `/engage`: what is sent there changes profiles, or says nothing.
    """
    client = ImportClient(destination, 1)
    try:
        answer = of_one_record(client.send(compress(_NO_EVENT), 1), len(_NO_EVENT))
    finally:
        client.close()
    if answer.action is not Action.STOP:
        return None
    return Stop(answer.status, answer.told)
