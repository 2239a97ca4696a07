"""Load on many models at once: `python -m bench.mixed_load PLAN` prints a line of JSON for each request.

PLAN is a JSON file: `rest` and `grpc` are addresses HOST:PORT, `clients` says how many clients there are, every other
one with gRPC, `requests` lists what they choose from by `weight` (a model, and the files with the bodies of its
requests), and the load ends after `seconds`, or after `at_most` requests. It runs in its own process, so that it shares
no interpreter with the server.
"""

import http.client
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.load import GRPC_PREDICT

OK = "OK"
_GIVEN_UP_S = 120.0

Ask = Callable[[dict[str, Any]], str]
"""Sends one of the planned requests; returns OK, or the status of the failure."""


def main(plan: dict[str, Any]) -> None:
    """Print each request's model, start in seconds since the beginning, duration, and status."""
    until_s = time.monotonic() + plan["seconds"]
    began_s, printing = time.monotonic(), threading.Lock()
    left = itertools.islice(itertools.count(), plan["at_most"])
    weights = [request["weight"] for request in plan["requests"]]

    def client(ask: Ask, chosen: random.Random) -> None:
        while time.monotonic() < until_s and next(left, None) is not None:
            [request] = chosen.choices(plan["requests"], weights)
            started_s = time.monotonic()
            status = ask(request)
            row = [request["model"], started_s - began_s, time.monotonic() - started_s, status]
            with printing:
                print(json.dumps(row), flush=True)

    asks = itertools.cycle([_rest_client(plan["rest"]), _grpc_client(plan["grpc"])])
    clients = [
        threading.Thread(target=client, args=(next(asks), random.Random(number))) for number in range(plan["clients"])
    ]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


def _rest_client(address: str) -> Ask:
    connections = threading.local()

    def ask(request: dict[str, Any]) -> str:
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(address, timeout=_GIVEN_UP_S)
        body = Path(request["rest"]).read_bytes()
        connections.own.request("POST", f"/v1/models/{request['model']}:predict", body)
        response = connections.own.getresponse()
        response.read()
        return OK if response.status == 200 else str(response.status)

    return ask


def _grpc_client(address: str) -> Ask:
    import grpc

    predict = grpc.insecure_channel(address).unary_unary(GRPC_PREDICT)

    def ask(request: dict[str, Any]) -> str:
        try:
            predict(Path(request["grpc"]).read_bytes(), timeout=request["grpc_timeout_s"])
        except grpc.RpcError as error:
            return str(error.code().name)
        return OK

    return ask


def rows_of(lines: str) -> Iterator[tuple[str, float, float, str]]:
    """What `main` printed: (model, start, seconds, status) of each request."""
    yield from (tuple(json.loads(line)) for line in lines.splitlines())


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
