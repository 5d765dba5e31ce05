"""Bad manifests against `sternpost validate`: whatever they are, there is an answer that names the field."""

from __future__ import annotations

import functools

import pytest
from bad_manifests import BadManifest, bad_manifests, valid

from sternpost_operator.manifests.companions import owned_objects
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.manifest import Manifest, parse_manifest
from sternpost_operator.resources.template import TemplateError

EVERY = bad_manifests(None)
CREATED = [bad for bad in EVERY if not bad.update]
LEFT_TO_THE_API_SERVER = 0.4
"""At most: what only Kubernetes knows of a Pod."""
ABOUT_THE_WHOLE = ("larger than", "nested", "apiVersion", "kind", "TrainingJob", "spec", "template")


def name_of(bad: BadManifest) -> str:
    return ascii(bad.name[:80])


@functools.cache
def read(index: int) -> Manifest:
    return parse_manifest(CREATED[index].text().encode())


def test_the_one_that_is_spoiled_is_good() -> None:
    manifest = parse_manifest(BadManifest("", valid(), "").text().encode())
    assert manifest.problems == ()
    assert manifest.job is not None
    build_pod(manifest.job, 2, images=Images.of_version("1"))


@pytest.mark.parametrize("index", range(len(CREATED)), ids=[name_of(bad) for bad in CREATED])
def test_there_is_an_answer_that_names_the_field(index: int) -> None:
    bad, manifest = CREATED[index], read(index)
    for problem in manifest.problems:
        assert problem.message
        assert problem.path or any(word in problem.message for word in ABOUT_THE_WHOLE), problem
    told = "\n".join(map(str, manifest.problems)).lower()
    if manifest.problems and not bad.nested and "larger than" not in told:
        assert bad.field.lower() in told
    if manifest.job is not None:  # the rest is for the API server to say, so there must be a Pod to show it
        try:
            build_pod(manifest.job, 0, images=Images.of_version("1"))
        except TemplateError as error:
            assert bad.field.lower() in str(error).lower()  # noqa: PT017 -- a Pod is as good an answer
        assert owned_objects(manifest.job, token="t" * 32, operator_namespace="sternpost-system")


def test_most_are_refused_before_a_cluster_sees_them() -> None:
    passed = [bad.name for index, bad in enumerate(CREATED) if not read(index).problems]
    assert len(passed) <= LEFT_TO_THE_API_SERVER * len(CREATED), passed


@pytest.mark.parametrize("bad", [bad for bad in EVERY if bad.update], ids=name_of)
def test_a_change_that_is_refused_is_no_bad_manifest_in_itself(bad: BadManifest) -> None:
    assert parse_manifest(bad.text().encode()).problems == ()


def test_they_are_the_same_each_time() -> None:
    chosen = bad_manifests()
    assert [bad.name for bad in chosen] == [bad.name for bad in bad_manifests()]
    assert len(chosen) == 500
    assert len({bad.text() for bad in chosen}) == 500
