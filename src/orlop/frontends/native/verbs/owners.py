"""The verbs `owners.*`."""

import os
import socket

from ...native.wire import peer_credentials
from .call import Call, Nothing, Verb


def _claim(call: Call, _: Nothing) -> object:
    with socket.socket(fileno=os.dup(call.hangup)) as client:
        pid = peer_credentials(client)[0]
    return {"owner": call.engine.owners.claim(pid)}


VERBS: dict[str, Verb] = {"owners.claim": Verb(Nothing, _claim)}
