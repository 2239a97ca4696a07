"""Beam's worker pool (worker_pool_main) for task managers that share a machine, on the loopback interface."""

import sys
from concurrent import futures

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class SharedWorkerPool(BeamFnExternalWorkerPoolServicer):
    """A pool that never stops its workers; they end with their connection.

    Every task manager names its workers 1-1, 2-1 and so on, so a shared pool that stops workers by name would also stop
    those of the other task manager.
    """

    def StopWorker(self, request, context):  # noqa: N802 - the protocol's name
        return beam_fn_api_pb2.StopWorkerResponse()


server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_insecure_port(f"localhost:{sys.argv[1]}")
beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(SharedWorkerPool(use_process=True), server)
server.start()
server.wait_for_termination()
