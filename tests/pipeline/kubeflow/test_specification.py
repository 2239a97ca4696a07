"""Loading a compiled package, and converting the parameters of a run."""

from pathlib import Path
from typing import Any

import pytest
from small_package import small_package, write_package

from pipeline.kubeflow.specification import RefusedError, convert_parameters, load_package

PARAMETERS = {
    "text": {"parameterType": "STRING"},
    "count": {"parameterType": "NUMBER_INTEGER"},
    "rate": {"parameterType": "NUMBER_DOUBLE"},
    "sizes": {"parameterType": "LIST"},
}
SPEC = {"root": {"inputDefinitions": {"parameters": PARAMETERS}}}


def _wrong(change: str) -> dict[str, Any]:
    package = small_package()
    tasks = package["root"]["dag"]["tasks"]
    if change == "version":
        package["schemaVersion"] = "2.0.0"
    elif change == "waits":
        tasks["read"]["dependentTasks"] = []
    elif change == "producer":
        tasks["read"]["inputs"]["artifacts"]["data"]["taskOutputArtifact"]["producerTask"] = "write_task"
    elif change == "name":
        tasks["re_ad"] = tasks.pop("read")
    elif change == "resolver":
        package["deploymentSpec"]["executors"]["read"] = {"resolver": {}}
    elif change == "field":
        tasks["read"]["cachingOption"] = {}
    return package


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("version", "schemaVersion '2.0.0': Kubeflow Pipelines 2 accepts only 2.1.0"),
        ("waits", "task 'read' reads from 'write' but does not wait for it"),
        ("producer", "task 'read' reads from 'write_task', which is not a task"),
        ("name", "task 're_ad': Argo allows only letters, digits and hyphens"),
        ("resolver", "task 'read' is a resolver, not a container"),
        ("field", 'no field named "cachingOption"'),
    ],
)
def test_specifications_that_kubeflow_refuses_are_refused(tmp_path: Path, change: str, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        load_package(write_package(_wrong(change), tmp_path))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name: digits", "is not a compiled package; create one with"),
        (b"a: [", "is not valid YAML"),
        (b"\xff", "is not"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "package.yaml"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=reason):
        load_package(path)


def test_parameters_are_converted_to_their_declared_types() -> None:
    given = {"text": "7", "count": "7", "rate": "7", "sizes": "[7]"}
    converted = convert_parameters(SPEC, given)
    assert converted == {"text": "7", "count": 7, "rate": 7.0, "sizes": [7]}
    assert [type(value) for value in converted.values()] == [str, int, float, list]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"counts": "7"}, "--param counts: the package has no such parameter; it has: count, rate, sizes, text"),
        ({"count": "many"}, "--param count=many: must be of type NUMBER_INTEGER"),
        ({"sizes": "7,"}, "--param sizes=7,: must be of type LIST"),
    ],
)
def test_an_unknown_or_mistyped_parameter_is_refused(given: dict[str, str], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        convert_parameters(SPEC, given)


def test_a_package_without_parameters_is_named_as_such() -> None:
    with pytest.raises(RefusedError, match="--param epochs: the package has no such parameter; it has: none"):
        convert_parameters({"root": {}}, {"epochs": "7"})
