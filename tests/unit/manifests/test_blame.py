from __future__ import annotations

from collections.abc import Callable

import pytest

from sternpost_operator.manifests.blame import in_template
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.training_job import TrainingJob

MakeJob = Callable[..., TrainingJob]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            'Pod "gpt-0" is invalid: spec.containers[0].image: Required value',
            'Pod "gpt-0" is invalid: spec.template.spec.containers[0].image: Required value',
        ),
        (
            "[spec.volumes[0].name: Invalid, spec.x: y]",
            "[spec.template.spec.volumes[0].name: Invalid, spec.template.spec.x: y]",
        ),
        (
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            'strict decoding error: unknown field "spec.nope"',
            'strict decoding error: unknown field "spec.template.spec.nope"',
        ),
        ("spec.initContainers[2].image: Required value", "spec.template.spec.initContainers[0].image: Required value"),
        ("spec.initContainers[1].image: Required value", "Pod.spec.initContainers[1].image: Required value"),
        ("spec.containers[0].env[0].name: Invalid", "Pod.spec.containers[0].env[0].name: Invalid"),
        ("exceeded quota: pods", "exceeded quota: pods"),
    ],
)
def test_places_are_those_of_the_manifest(make_job: MakeJob, said: str, meant: str) -> None:
    assert in_template(make_job(), said) == meant


@pytest.mark.parametrize("checkpoint", [None, {"storage": "s3://b/x"}])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_shift_is_that_of_the_pod(make_job: MakeJob, images: Images, checkpoint: object, ranks: int) -> None:
    variables = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    job = make_job(
        trainer={"env": variables},
        pod={
            "initContainers": [{"name": "one", "image": "i"}, {"name": "two", "image": "i"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
        checkpoint=checkpoint,
        ranksPerWorker=ranks,
    )
    spec = build_pod(job, 0, images=images)["spec"]
    at = [item["name"] for item in spec["initContainers"]].index("two")
    assert in_template(job, f"spec.initContainers[{at}]") == "spec.template.spec.initContainers[1]"
    at = [item["name"] for item in spec["containers"][0]["env"]].index("B")
    assert in_template(job, f"spec.containers[0].env[{at}].value") == "spec.template.spec.containers[0].env[1].value"
    assert in_template(job, "spec.containers[1].env[1]") == "spec.template.spec.containers[1].env[1]"
    assert spec["volumes"][0]["name"] == "v"
