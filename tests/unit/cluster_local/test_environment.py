from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.cluster.local.environment import (
    build_command,
    build_environment,
    expand,
    field_value,
    inherited_environment,
    path_replacer,
    port_names,
)
from sternpost_operator.cluster.local.manifest_fields import PodSpecError
from sternpost_operator.cluster.local.pod_spec import ContainerSpec, PodSpec, RestartPolicy, Variable

FOLDERS = {"/sternpost/bin": Path("/real/bin"), "/sternpost": Path("/real/all"), "/data": Path("/real/data")}


def spec(
    *variables: Variable, command: tuple[str, ...] = ("true",), ports: tuple[tuple[str, int], ...] = ()
) -> ContainerSpec:
    return ContainerSpec("trainer", command, variables=variables, ports=ports)


def pod(*containers: ContainerSpec) -> PodSpec:
    return PodSpec(
        "gpt-0",
        "uid",
        "ns",
        "node-1",
        RestartPolicy.ALWAYS,
        30,
        (),
        containers,
        labels={"a/b": "c"},
        service_account="sa",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/sternpost/bin/launcher.pyz", "/real/bin/launcher.pyz"),
        ("/sternpost/bin", "/real/bin"),
        ("/sternpost/bin-x", "/real/all/bin-x"),
        ("/sternposts", "/sternposts"),
        ("--dir=/data", "--dir=/real/data"),
        ("file:///data/a", "file:///real/data/a"),
        ("/data/a:/data/b", "/real/data/a:/real/data/b"),
        ('{"storage":"file:///data","x":"/data"}', '{"storage":"file:///real/data","x":"/real/data"}'),
        ("/home/data", "/home/data"),
        ("./data ../data ~/data", "./data ../data ~/data"),
        ("/data.bin", "/data.bin"),
        ("cd /data; ls /data.", "cd /real/data; ls /real/data."),
        ("s3://bucket/data", "s3://bucket/data"),
    ],
)
def test_mount_paths_are_replaced_where_they_are_paths(text: str, expected: str) -> None:
    assert path_replacer(FOLDERS)(text) == expected


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(max_size=60))
def test_texts_without_a_mount_path_stay(text: str) -> None:
    assert path_replacer({"/never/there": Path("/x")})(text) == text
    assert path_replacer({})(text) == text


def test_expansion_is_that_of_kubernetes() -> None:
    assert expand("$(A)-$(B)-$$(A)-$$$(A)-$A-$(", {"A": "1"}) == "1-$(B)-$(A)-$1-$A-$("


def test_variables_are_expanded_in_their_order() -> None:
    container = spec(
        Variable("LATER", "$(FIRST)"),
        Variable("FIRST", "/data"),
        Variable("SECOND", "$(FIRST)/x"),
        Variable("HOSTNAME_OF", field_path="metadata.name"),
        Variable("KEY", secret="s", secret_key="k"),
        Variable("STERNPOST_CONTROL_PLANE", "file:///data/objects"),
    )
    environment = build_environment(
        container, pod(container), inherited={"HOME": "/home"}, ports={}, folders=FOLDERS, secret=lambda _: None
    )
    assert environment["LATER"] == "$(FIRST)"
    assert environment["SECOND"] == "/real/data/x"
    assert environment["HOSTNAME_OF"] == "gpt-0"
    assert environment["HOME"] == "/home"
    assert environment["STERNPOST_CONTROL_PLANE"] == "file:///data/objects"
    assert "KEY" not in environment
    command = spec(command=("run", "$(SECOND)/y", "/sternpost/bin/z"))
    assert build_command(command, environment, FOLDERS) == ("run", "/real/data/x/y", "/real/bin/z")


def test_gloo_speaks_over_loopback_unless_the_template_says_otherwise() -> None:
    def interface(container: ContainerSpec) -> str:
        found = build_environment(
            container,
            pod(container),
            inherited={"GLOO_SOCKET_IFNAME": "eth0"},
            ports={},
            folders={},
            secret=lambda _: None,
        )
        return found["GLOO_SOCKET_IFNAME"]

    assert interface(spec()) == "lo"
    assert interface(spec(Variable("GLOO_SOCKET_IFNAME", "eth1"))) == "eth1"


def test_every_port_is_the_machines_own() -> None:
    trainer = spec(Variable("STERNPOST_PORT_EAGLE_EYE", "9470"), Variable("STERNPOST_PORT_CHECKPOINT", "9471"))
    side = spec(ports=(("eagle-eye", 9470), ("metrics-0", 9400)))
    assert port_names(pod(trainer, side)) == ("eagle-eye", "metrics-0", "checkpoint")
    environment = build_environment(
        trainer, pod(trainer), inherited={}, ports={"eagle-eye": 21000}, folders={}, secret=lambda _: None
    )
    assert environment["STERNPOST_PORT_EAGLE_EYE"] == "21000"


def test_fields() -> None:
    assert field_value("spec.nodeName", pod()) == "node-1"
    assert field_value("metadata.labels['a/b']", pod()) == "c"
    assert field_value("metadata.annotations['x']", pod()) == ""
    with pytest.raises(PodSpecError, match=r"spec\.x"):
        field_value("spec.x", pod())


def test_containers_inherit_nothing_of_sternposts_own() -> None:
    found = inherited_environment({"PATH": "/bin", "STERNPOST_JOB": "x", "LANG": "C"}, Path("/venv/bin"))
    assert found == {"PATH": "/venv/bin:/bin", "LANG": "C"}
