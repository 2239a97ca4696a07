"""Load generator: `python -m bench.load URL CLIENTS REQUESTS FILE` sends requests from several clients at once.

It runs in its own process, so that it shares no interpreter with the server. Every request has FILE's bytes as its
body, so that only the server's work is measured. Prints JSON: the total seconds, and each request's latency. Ends with
an error if a request fails.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GRPC_PREDICT = "/tensorflow.serving.PredictionService/Predict"
WARM_UP_REQUESTS = 20

Ask = Callable[[], Awaitable[int]]
"""Sends the request and returns the response's size in bytes."""


async def load(url: str, *, clients: int, requests: int, body: bytes) -> dict[str, Any]:
    """Send `requests` requests in total from `clients` concurrent clients: {"seconds", "latencies_s"}."""
    connect = _grpc_client if url.startswith("grpc:") else _rest_client
    asks = [await connect(url, body) for _ in range(clients)]
    for ask in asks:
        for _ in range(max(1, WARM_UP_REQUESTS // clients)):
            await ask()
    left = iter(range(requests))
    latencies_s: list[float] = []

    async def client(ask: Ask) -> None:
        for _ in left:
            started = time.perf_counter()
            await ask()
            latencies_s.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client(ask) for ask in asks))
    return {"seconds": time.perf_counter() - started, "latencies_s": latencies_s}


async def _grpc_client(url: str, body: bytes) -> Ask:
    import grpc

    # By default, all channels of a process share one connection.
    channel = grpc.aio.insecure_channel(urlsplit(url).netloc, [("grpc.use_local_subchannel_pool", 1)])
    predict = channel.unary_unary(GRPC_PREDICT)

    async def ask() -> int:
        return len(await predict(body))

    return ask


async def _rest_client(url: str, body: bytes) -> Ask:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body

    async def ask() -> int:
        writer.write(request)
        response = await reader.readuntil(b"\r\n\r\n")
        if not response.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{url}: {response.decode()}")
        size = int(response.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(size)
        return size

    return ask


if __name__ == "__main__":
    URL, CLIENTS, REQUESTS, FILE = sys.argv[1:]
    result = asyncio.run(load(URL, clients=int(CLIENTS), requests=int(REQUESTS), body=Path(FILE).read_bytes()))
    print(json.dumps(result))
