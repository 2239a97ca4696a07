"""Simulates Argo's decision to start a failed pod again.

Follows processNodeRetries in workflow/controller/operator.go of Argo Workflows, and `templateDefaults` of the
controller that Kubeflow Pipelines 2.17 installs. Kubeflow copies a task's retryPolicy into Argo's retryStrategy.
"""

from typing import Final

from pipeline.kubeflow.names import Message

ON_ERROR: Final = "OnError"
"""The policy of the controller that Kubeflow Pipelines 2.17 installs: retry only what Kubernetes itself broke off."""
ALWAYS: Final = "Always"


def why_not_retried(task: Message, *, controller_policy: str, attempts: int, seconds: float) -> str | None:
    """Why Argo does not start a pod again whose container exited with an error; None if it does.

    `attempts`: number of pods so far; `seconds`: since the first one started, without the waits, which are added here.
    """
    policy = task.get("retryPolicy", {})
    if attempts > int(policy.get("maxRetryCount", 0)):
        return "No more retries left"
    if controller_policy == ON_ERROR:
        return f"Argo's retryPolicy is {ON_ERROR}, which ignores containers that exit with an error: docs/kubeflow.md"
    # Argo counts from the start of the first pod, and a missing duration is 0.
    waits = sum(
        _seconds(policy, "backoffDuration") * float(policy.get("backoffFactor", 1)) ** n for n in range(attempts)
    )
    if seconds + waits > _seconds(policy, "backoffMaxDuration"):
        return "Max duration limit exceeded"
    return None


def _seconds(policy: Message, field: str) -> float:
    return float(policy.get(field, "0s").removesuffix("s"))
