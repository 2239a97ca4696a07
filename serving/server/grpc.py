"""TensorFlow Serving's gRPC services, based on its generated servicer classes."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.errors import ServingError, Status, invalid_argument
from serving.model.batching import answered_alone
from serving.model.tensor_protos import request_from_proto, response_to_proto
from serving.server.access import Certificate, Tokens
from serving.server.model_host import Requested, ServedVersion
from serving.server.service import Service
from serving.server.settings import ListenError, ServerSettings

_FOR_EVER_S: Final = 1e6
"""gRPC reports a longer time than this for requests without a deadline."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def start_grpc_server(
    service: Service, settings: ServerSettings, *, tokens: Tokens | None = None, certificate: Certificate | None = None
) -> tuple[grpc.Server, int]:
    """A started gRPC server and its port; raises ListenError if the port is taken."""
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="grpc"),
        interceptors=[*([_TokenInterceptor(tokens)] if tokens else []), _ErrorInterceptor()],
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers could share a port and its clients
        ],
        maximum_concurrent_rpcs=settings.max_requests,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(service, may_reload=settings.has_several_models), server
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host  # IPv6
    try:
        address = f"{host}:{settings.grpc_port}"
        if certificate is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(certificate))
    except RuntimeError:
        port = 0
    if port == 0:
        raise ListenError(
            f"cannot listen on {settings.host}:{settings.grpc_port} for gRPC: the port is in use, or the host is "
            "no address of this machine; choose another --port or --host"
        )
    server.start()
    return server, port


def _credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """Credentials that use the newest certificate for every new connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([certificate.pair()])

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the generated base class answers other methods with UNIMPLEMENTED."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Run a signature of a model."""
        requested = _requested(request)
        models = self._service.models
        with (
            self._service.counted(requested, api="GRPC"),
            models.lease(requested, _deadline(context)) as served,
        ):
            parsed = request_from_proto(request)
            outputs = answered_alone(self._service.run(served, parsed))
            signature_name = served.predictor.signature(parsed.signature_name).name
            return response_to_proto(outputs, _model_spec(requested.name, served.number, signature_name))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The signatures of a model."""
        requested = _requested(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        models = self._service.models
        with models.admission(requested), models.lease(requested, _deadline(context)) as served:
            spec = _model_spec(requested.name, served.number)
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
            response.metadata["signature_def"].Pack(signature_def_map(served))
            return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and, for several models, HandleReloadConfigRequest."""

    def __init__(self, service: Service, *, may_reload: bool) -> None:
        self._service = service
        self._may_reload = may_reload

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The states of a model's versions."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for state in self._service.models.states(_requested(request)):
            entry = response.model_version_status.add(version=state.version)
            entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(state.state)
            entry.status.error_code = state.error_code
            entry.status.error_message = state.error_message
        return response

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Serve the models of a configuration, until the configuration file changes; answers when they are loaded."""
        if not self._may_reload:
            raise ServingError(
                Status.UNIMPLEMENTED, "this server serves a single model; start it with --model_config_file"
            )
        if request.metric_names:
            raise ServingError(Status.UNIMPLEMENTED, "metric_names is not supported; read the metrics over REST")
        self._service.models.reload(request.config, _deadline(context))
        return model_management_pb2.ReloadConfigResponse()


def signature_def_map(served: ServedVersion) -> get_model_metadata_pb2.SignatureDefMap:
    """The model's signatures, as both protocols describe them."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in served.predictor.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    return signatures


class _TokenInterceptor(grpc.ServerInterceptor):
    """Answers requests without an accepted token with UNAUTHENTICATED, before their content is read."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization")
        try:
            self._tokens.check(given if isinstance(given, str) else None)
        except ServingError as error:
            code, message = _CODES[error.status.grpc_number], error.message
            return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(code, message))
        return continuation(details)


class _ErrorInterceptor(grpc.ServerInterceptor):
    """Answers ServingErrors with their status, and messages that are not valid protobuf with INVALID_ARGUMENT."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}
        """By method; gRPC requests one for every call."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        if details.method in self._handlers:
            return self._handlers[details.method]
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def handle(data: bytes, context: grpc.ServicerContext) -> Any:
            try:
                return handler.unary_unary(handler.request_deserializer(data), context)
            except DecodeError:  # gRPC itself would answer INTERNAL
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a valid protobuf message")
            except ServingError as error:
                context.abort(_CODES[error.status.grpc_number], error.message)

        wrapped = grpc.unary_unary_rpc_method_handler(handle, None, handler.response_serializer)
        self._handlers[details.method] = wrapped
        return wrapped


def _requested(request: Any) -> Requested:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return Requested(spec.name, version, spec.version_label or None)


def _deadline(context: grpc.ServicerContext) -> float | None:
    """When the client stops waiting, on the monotonic clock; None if it has not said so."""
    left_s = context.time_remaining()
    return None if left_s is None or left_s > _FOR_EVER_S else time.monotonic() + left_s


def _model_spec(name: str, version: int, signature_name: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    return spec
