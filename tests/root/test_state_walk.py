"""The table of states against the real thing: verbs in any order, and what the container is after each of them.

ORLOP_TEST_STEPS: how many pairs of a state and a verb (60: each once); ORLOP_TEST_SEED: in which order. What is
expected is written here once more, by verb, so that a wrong arrow in the table, or a verb that does not ask
it, is seen.
"""

from __future__ import annotations

import os
import random

import pytest

from support.docker_http import Api
from support.engine import Environment

STEPS = int(os.environ.get("ORLOP_TEST_STEPS", "60"))
SEED = int(os.environ.get("ORLOP_TEST_SEED", "1"))
CREATED, RUNNING, PAUSED, EXITED, GONE = "created", "running", "paused", "exited", "gone"
UP, DOWN = (RUNNING, PAUSED), (CREATED, EXITED)
# verb: the request, and (states in which it is done, the state after it; None: the same one)
VERBS: dict[str, tuple[str, str, dict[str, str | None]]] = {
    "start": ("POST", "start", {CREATED: RUNNING, EXITED: RUNNING, RUNNING: None}),
    "stop": ("POST", "stop?t=0", {RUNNING: EXITED, PAUSED: EXITED, CREATED: None, EXITED: None}),
    "restart": ("POST", "restart?t=0", dict.fromkeys((*UP, *DOWN), RUNNING)),
    "kill": ("POST", "kill", dict.fromkeys(UP, EXITED)),
    "signal": ("POST", "kill?signal=WINCH", dict.fromkeys(UP, RUNNING)),
    "pause": ("POST", "pause", {RUNNING: PAUSED}),
    "unpause": ("POST", "unpause", {PAUSED: RUNNING}),
    "exec": ("POST", "exec", {RUNNING: None}),
    "top": ("GET", "top", dict.fromkeys(UP)),
    "remove": ("DELETE", "", dict.fromkeys(DOWN, GONE)),
    "remove by force": ("DELETE", "?force=1", dict.fromkeys((*UP, *DOWN), GONE)),
    "rename": ("POST", "rename?name={other}", dict.fromkeys((*UP, *DOWN))),
    "update": ("POST", "update", dict.fromkeys((*UP, *DOWN))),
    "changes": ("GET", "changes", dict.fromkeys((*UP, *DOWN))),
    "logs": ("GET", "logs?stdout=1", dict.fromkeys((*UP, *DOWN))),
}
# state wanted: from which state by which verb towards it. What is gone is made anew by the first verb.
WAYS = {
    CREATED: dict.fromkeys((*UP, EXITED), "remove by force") | {GONE: "changes"},
    RUNNING: {CREATED: "start", EXITED: "start", PAUSED: "unpause", GONE: "start"},
    PAUSED: {CREATED: "start", EXITED: "start", RUNNING: "pause", GONE: "start"},
    EXITED: {CREATED: "start", RUNNING: "stop", PAUSED: "stop", GONE: "start"},
}
BODIES = {"exec": b'{"Cmd":["true"]}', "update": b'{"PidsLimit":99}'}


class Container:
    """One that is made anew whenever it is gone."""

    def __init__(self, api: Api) -> None:
        self.api, self.names, self.state = api, ["one", "two"], GONE

    def step(self, verb: str) -> None:
        if self.state == GONE:
            body = b'{"Image":"host","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}'
            made = self.api("POST", f"/containers/create?name={self.names[0]}", body, Content_Type="application/json")
            assert made.status == 201, made
            self.state = CREATED
        method, path, allowed = VERBS[verb]
        path = f"/containers/{self.names[0]}/{path}".rstrip("/").replace("/?", "?").format(other=self.names[1])
        answer = self.api(method, path, BODIES.get(verb, b""), Content_Type="application/json")
        told = (verb, self.state, answer.status, answer.body[:200])
        if self.state not in allowed:
            assert answer.status == 409, told
        else:
            assert answer.status in (200, 201, 204, 304), told
            self.state = allowed[self.state] or self.state
            if verb == "rename":
                self.names.reverse()
            if verb == "kill":
                assert self.api("POST", f"/containers/{self.names[0]}/wait").json["StatusCode"] == 137
        assert self.seen() == self.state, told

    def seen(self) -> str:
        found = self.api("GET", f"/containers/{self.names[0]}/json")
        return str(found.json["State"]["Status"]) if found.status == 200 else GONE


@pytest.mark.timeout(120 + 2 * STEPS)
def test_verbs_in_any_order_do_what_the_table_says(orlop: Environment) -> None:
    orlop("info")
    container, draw = Container(Api(orlop.run / "docker.sock", "v1.47")), random.Random(SEED)
    pairs = [(state, verb) for state in (*UP, *DOWN) for verb in VERBS]
    draw.shuffle(pairs)
    for state, verb in (pairs * (1 + STEPS // len(pairs)))[:STEPS]:
        while container.state != state:
            container.step(WAYS[state][container.state])
        container.step(verb)
    while container.state != RUNNING:
        container.step(WAYS[RUNNING][container.state])
    orlop("start", container.names[0])  # docker's door answers this one by itself
    orlop("rm", "-f", container.names[0], check=False)
