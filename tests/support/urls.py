"""The addresses of a test's server, as a client takes them."""

from serving.server.run import ServerAddress


def rest_url(address: ServerAddress) -> str:
    return f"http://{_bracketed(address.host)}:{address.rest_port}"


def grpc_url(address: ServerAddress) -> str:
    return f"grpc://{_bracketed(address.host)}:{address.grpc_port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
