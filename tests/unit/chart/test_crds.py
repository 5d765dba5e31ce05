"""The chart's CustomResourceDefinitions are those of crds/, and stay on uninstall."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import yaml
from helm_chart import ROOT, load_script, render


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(ROOT / "tools" / "chart_crds.py")


def test_up_to_date(tool: ModuleType) -> None:
    assert tool.stale(tool.wanted()) == [], "run: make generate"


def test_rendered_as_generated_with_the_annotation_that_keeps_them() -> None:
    rendered = {each["metadata"]["name"]: each for each in render({}) if each["kind"] == "CustomResourceDefinition"}
    sources = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert rendered.keys() == {source["metadata"]["name"] for source in sources}
    for source in sources:
        crd = rendered[source["metadata"]["name"]]
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd == source


def test_they_can_be_left_out() -> None:
    assert "CustomResourceDefinition" not in {each["kind"] for each in render({"crds": {"install": False}})}


def test_a_missing_a_changed_and_a_left_over_file_are_stale(tool: ModuleType, tmp_path: Path) -> None:
    tool.write({"a.yaml": "1", "b.yaml": "2"}, tmp_path)
    assert tool.stale({"a.yaml": "1", "b.yaml": "2"}, tmp_path) == []
    assert tool.stale({"a.yaml": "1", "b.yaml": "3", "c.yaml": "4"}, tmp_path) == ["b.yaml", "c.yaml"]
    tool.write({"a.yaml": "1"}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("text", ["kind: X\n", "a: 1\nmetadata:\n  annotations:\n    x: y\n  name: b\n"])
def test_a_definition_without_a_place_for_the_annotation_is_refused(tool: ModuleType, text: str) -> None:
    with pytest.raises(tool.SourceError):
        tool.kept(text)
