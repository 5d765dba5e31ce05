"""The environment."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.config import ConfigError, settings_from

GOOD = {
    "STERNPOST_JOB": "gpt",
    "STERNPOST_JOB_UID": "u",
    "STERNPOST_NAMESPACE": "default",
    "STERNPOST_POD": "gpt-0",
    "STERNPOST_POD_UID": "p",
    "STERNPOST_NODE": "n",
    "STERNPOST_CONTROL_DIR": "/c",
    "STERNPOST_CONTROL_PLANE": "file:///o",
    "STERNPOST_TOKEN_FILE": "/t",
    "STERNPOST_PORT_EAGLE_EYE": "9470",
    "STERNPOST_PORT_METRICS_0": "9400",
    "STERNPOST_PORT_METRICS_1": "9401",
}


def test_everything_has_its_place():
    settings = settings_from(GOOD | {"STERNPOST_EAGLE_EYE": '{"slow": {"minSteps": 5}, "newer": 1}'})
    assert settings.metrics_ports == (9400, 9401)
    assert settings.policy.slow.min_steps == 5
    assert settings.policy.slow.ratio == 1.5
    assert settings.listen_host == "0.0.0.0"  # noqa: S104 - other Pods must reach it


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STERNPOST_JOB_UID", ""),
        ("STERNPOST_PORT_EAGLE_EYE", "http"),
        ("STERNPOST_PORT_CHECKPOINT", "0"),
        ("STERNPOST_PORT_METRICS_1", "x"),
        ("STERNPOST_EAGLE_EYE", "{"),
        ("STERNPOST_EAGLE_EYE", '{"slow": {"ratio": 0.5}}'),
    ],
)
def test_what_is_wrong_is_named(variable, value):
    with pytest.raises(ConfigError, match=variable.removesuffix("_1")):
        settings_from(GOOD | {variable: value})


def test_policies_have_the_operators_defaults_and_bounds():
    operator = pytest.importorskip("sternpost_operator.resources.training_job")
    assert settings_from(GOOD).policy.to_wire() == operator.EagleEyePolicy().to_wire()
