"""What the benchmark reads from a run's metadata store."""

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from bench.timing import peak_memory_mb, peaks_mb
from pipeline.metadata.store import METADATA_FILE
from schema.artifacts import PEAK_MEMORY_PROPERTY


def put(store, component, peak_mb):
    """An execution of the component, and its artifact."""
    node = mlmd.Context(type_id=store.put_context_type(mlmd.ContextType(name="node")), name=f"bench.{component}")
    execution = mlmd.Execution(type_id=store.put_execution_type(mlmd.ExecutionType(name=f"module.{component}")))
    artifact = mlmd.Artifact(type_id=store.put_artifact_type(mlmd.ArtifactType(name="Model")), uri=component)
    if peak_mb:
        artifact.custom_properties[PEAK_MEMORY_PROPERTY].double_value = peak_mb
    store.put_execution(execution, [(artifact, mlmd.Event(type=mlmd.Event.OUTPUT))], [node])


def test_the_peak_of_each_component_is_read_from_its_artifacts(tmp_path):
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / METADATA_FILE)
    store = metadata_store.MetadataStore(config)
    for component, peak_mb in (("Trainer", 900.0), ("latest_blessed_model", 0), ("Pusher", 700.0)):
        put(store, component, peak_mb)
    assert peaks_mb(tmp_path) == {"Trainer": 900.0, "Pusher": 700.0}
    assert peak_memory_mb(tmp_path) == 900.0
