"""What an API server says of a Pod, said of the template that it was built from. Pure."""

from __future__ import annotations

import re

from sternpost_operator.manifests.environment import common_environment, grace_environment
from sternpost_operator.resources.training_job import TRAINER_CONTAINER, TrainingJob

# A path as the API server writes it: "spec.containers[0].image"; in "Container.spec.containers.image" it is a Go type's.
_PATH = re.compile(r"(?<![\w.\]])spec\.(?=[a-zA-Z])")
_INIT_CONTAINER = re.compile(r"(?<![\w.\]])spec\.initContainers\[(?P<index>[0-9]+)\]")
_VARIABLE = re.compile(r"(?<![\w.\]])spec\.containers\[(?P<container>[0-9]+)\]\.env\[(?P<index>[0-9]+)\]")


def in_template(job: TrainingJob, message: str) -> str:
    """The message with the fields' places in the manifest of the job: `spec.template.spec.containers[0].env[2]`.

    Init containers and variables of Sternpost's own come before the template's; one that is Sternpost's is left as it is.
    """
    init = 3 if job.spec.checkpoint else 2
    variables = len(common_environment(job)) + len(grace_environment(job))
    containers = job.spec.template["spec"]["containers"]
    trainer = next(index for index, item in enumerate(containers) if item["name"] == TRAINER_CONTAINER)

    def init_container(match: re.Match[str]) -> str:
        index = int(match["index"]) - init
        return f"spec.initContainers[{index}]" if index >= 0 else f"Pod.{match[0]}"

    def variable(match: re.Match[str]) -> str:
        index = int(match["index"]) - (variables if int(match["container"]) == trainer else 0)
        return f"spec.containers[{match['container']}].env[{index}]" if index >= 0 else f"Pod.{match[0]}"

    message = _VARIABLE.sub(variable, _INIT_CONTAINER.sub(init_container, message))
    return _PATH.sub("spec.template.spec.", message)
