"""What the images are made of, and what the chart calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any

import pytest
import yaml
from helm_chart import CHART, ROOT, container_of, environment_of, load_script, render
from packaging.requirements import Requirement

from sternpost_operator.manifests.images import Images

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
TARGETS = ("operator", "eagle-eye", "checkpoint", "memory")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(ROOT / "tools" / "locked.py")


def images(values: dict[str, Any]) -> dict[str, str]:
    objects = render(values)
    variables = environment_of(container_of(objects, "sternpost-operator"))
    return {
        "operator": container_of(objects, "sternpost-operator")["image"],
        "test": container_of(objects, "sternpost-test")["image"],
        "memory": container_of(objects, "sternpost-memory")["image"],
        "eagle-eye": variables["STERNPOST_IMAGE_EAGLE_EYE"],
        "launcher": variables["STERNPOST_IMAGE_LAUNCHER"],
        "checkpoint": variables["STERNPOST_IMAGE_CHECKPOINT"],
        "redis": container_of(objects, "sternpost-redis")["image"],
    }


def test_one_version_everywhere() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == PROJECT["version"]
    assert chart["version"] == PROJECT["version"]
    own = {name: image for name, image in images({}).items() if name != "redis"}
    assert {image.rpartition(":")[2] for image in own.values()} == {PROJECT["version"]}


def test_the_chart_and_the_operator_agree_on_names() -> None:
    by_default = Images.of_version(PROJECT["version"])
    found = images({})
    assert (found["launcher"], found["eagle-eye"], found["checkpoint"]) == (
        by_default.launcher,
        by_default.eagle_eye,
        by_default.checkpoint,
    )


def test_registry_tag_and_pull_policy_reach_every_image() -> None:
    values = {"image": {"registry": "registry.example/team/", "tag": "9", "pullPolicy": "Always"}}
    found = images(values)
    assert found.pop("redis") == "redis:7.2-bookworm"
    assert all(image.startswith("registry.example/team/sternpost/") for image in found.values())
    assert all(image.endswith(":9") for image in found.values())
    objects = render(values)
    for name in ("sternpost-operator", "sternpost-memory", "sternpost-test"):
        assert container_of(objects, name)["imagePullPolicy"] == "Always"
    assert environment_of(container_of(objects, "sternpost-operator"))["STERNPOST_IMAGE_PULL_POLICY"] == "Always"


def test_a_target_for_each_image_that_the_chart_names() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert set(TARGETS) <= targets


def test_the_dockerfile_names_no_registry_and_no_index() -> None:
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert "/" not in base.group(1)
    instructions = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    assert not re.search(r"https?://|--index|--extra-index|--trusted", instructions)


def test_services_do_not_run_as_root_and_carry_no_build_stage() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    service = next(stage for stage in stages if stage.startswith("${BASE} AS service\n"))
    assert re.search(r"^USER 65532:65532$", service, re.MULTILINE)
    for target in TARGETS:
        stage = next(stage for stage in stages if stage.startswith(f"service AS {target}\n"))
        copied = re.findall(r"^COPY (.*)$", stage, re.MULTILINE)
        assert copied == [f"--from={target}-venv /opt/sternpost /opt/sternpost"]
        assert not re.search(r"^(USER|RUN)", stage, re.MULTILINE)


@pytest.mark.parametrize("extra", TARGETS)
def test_requirements_of_an_image_are_pinned_by_hash_and_without_torch(tool: ModuleType, extra: str) -> None:
    entries = tool.parse_lock(LOCK)
    names = tool.names_of_extra((ROOT / "pyproject.toml").read_text(encoding="utf-8"), extra)
    found = tool.closure(entries, names)
    assert not {"torch", "matplotlib", "pytest"} & {entry.name for entry in found}
    for entry in found:
        blocks = [line for line in entry.text.splitlines() if not line.startswith(" ")]
        assert all("==" in block for block in blocks)
        assert entry.text.count("--hash=sha256:") >= len(blocks)


@pytest.mark.parametrize("extra", TARGETS)
def test_requirements_of_an_image_are_all_that_the_installed_packages_ask_for(tool: ModuleType, extra: str) -> None:
    """The lock's comments are believed; here they are compared with what the packages themselves say."""
    entries = tool.parse_lock(LOCK)
    names = tool.names_of_extra((ROOT / "pyproject.toml").read_text(encoding="utf-8"), extra)
    found = {entry.name for entry in tool.closure(entries, names)}
    waiting, wanted = [tool.normalized(name) for name in names], set[str]()
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted.add(name)
        waiting += [tool.normalized(each.name) for each in requirements(name)]
    assert wanted - found == set()


def requirements(name: str) -> list[Requirement]:
    """What an installed package needs on this machine, without its extras."""
    try:
        texts = distribution(name).requires or []
    except PackageNotFoundError:  # pragma: no cover - another Python or system needs it
        return []
    found = [Requirement(text) for text in texts]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def test_what_is_left_out_takes_along_what_only_that_needs(tool: ModuleType) -> None:
    lock = "a==1 \\\n    --hash=sha256:00\n    # via sternpost (pyproject.toml)\n" + "".join(
        f"{name}==1 \\\n    --hash=sha256:00\n    # via {parents}\n"
        for name, parents in {"b": "a", "c": "b", "d": "\n    #   a\n    #   b"}.items()
    )
    entries = tool.parse_lock(lock)
    assert [entry.name for entry in tool.closure(entries, ["a"])] == ["a", "b", "c", "d"]
    assert [entry.name for entry in tool.closure(entries, ["a"], without=["b"])] == ["a", "d"]


def test_a_package_for_two_ranges_of_pythons_keeps_both_lines(tool: ModuleType) -> None:
    markers = ("a==1 ; python_full_version < '3.12'", "a==2 ; python_full_version >= '3.12'")
    lock = "".join(f"{marker} \\\n    --hash=sha256:00\n" for marker in markers)
    (entry,) = tool.closure(tool.parse_lock(lock), ["A"])
    assert tuple(line.removesuffix(" \\") for line in entry.text.splitlines()[::2]) == markers


def test_unknown_extras_and_packages_are_refused(tool: ModuleType) -> None:
    with pytest.raises(tool.LockError, match="no extra 'nope'"):
        tool.names_of_extra((ROOT / "pyproject.toml").read_text(encoding="utf-8"), "nope")
    with pytest.raises(tool.LockError, match="no nope"):
        tool.closure({}, ["nope"])


def test_the_image_leaves_out_nothing_that_a_service_imports() -> None:
    """rich is left out of the images, so only the command that draws may import it."""
    assert "TYPER_USE_RICH=0" in DOCKERFILE
    for package in ("sidecars", "memory_service", "operator/sternpost_operator"):
        for path in (ROOT / package).rglob("*.py"):
            if "local_run" in path.parts or path.name in {"cli.py", "run.py"}:
                continue
            assert not re.search(r"^\s*(from|import) rich\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_tool_runs_on_any_python_of_a_base() -> None:
    for name in ("locked", "image_venv"):
        text = (ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
        modules = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)) - {"__future__", "locked"}
        assert modules <= sys.stdlib_module_names


@pytest.mark.parametrize(("code", "running", "exit_code"), [("pass", False, 0), ("import sys; sys.exit(3)", False, 3)])
def test_the_probe_of_a_start_tells_of_a_command_that_ends(code: str, running: bool, exit_code: int) -> None:
    probe = ROOT / "benchmarks" / "images" / "start_probe.py"
    command = [sys.executable, str(probe), sys.executable, "-c", code]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (told["running"], told["exitCode"]) == (running, exit_code)
    assert 0 < told["cpuSeconds"] < 60


def test_the_probe_of_a_start_ends_a_command_that_has_settled() -> None:
    probe = ROOT / "benchmarks" / "images" / "start_probe.py"
    command = [sys.executable, str(probe), sys.executable, "-c", "import threading; threading.Event().wait()"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (told["running"], told["exitCode"]) == (True, None)
