"""Drains through the Eviction API."""

from __future__ import annotations

import asyncio

from node_world import BUDGET, World


def ill(**settings) -> World:
    world = World(drain=True, **settings)
    world.condition("node-3")
    return world


def reconcile(world: World):
    return asyncio.run(world.reconcile())


def test_other_pods_are_evicted_and_only_they():
    world = ill()
    world.pod("web", "node-3")
    world.pod("elsewhere", "node-4")
    world.pod("daemon", "node-3", owner="DaemonSet")
    world.pod("worker", "node-3", owner="TrainingJob")
    world.pod("mirror", "node-3", owner="Node", annotations={"kubernetes.io/config.mirror": "x"})
    world.pod("done", "node-3")
    world.api.pods["default", "done"]["status"]["phase"] = "Succeeded"
    world.pod("ending", "node-3", deletionTimestamp="2025-01-01T00:00:00Z")
    kept = reconcile(world)
    assert world.api.evicted == ["web"]
    assert kept.drains == {}
    assert world.drains == []
    del world.api.pods["default", "ending"]
    world.clock += 5
    reconcile(world)
    assert world.drains == ["done"]
    assert world.reasons()[-1] == "SternpostDrained"


def test_without_the_permission_nobody_is_evicted():
    world = ill()
    world.settings = world.settings.__class__(cordon=True, drain=False)
    world.restart()
    world.pod("web", "node-3")
    reconcile(world)
    assert world.cordoned == {"node-3"}
    assert world.api.evicted == []


def test_a_node_that_others_cordoned_is_not_drained():
    world = World(drain=True)
    world.cordon("node-3")
    world.condition("node-3")
    world.pod("web", "node-3")
    reconcile(world)
    assert world.api.evicted == []


def test_a_budget_has_the_last_word_and_that_is_said():
    world = ill()
    world.pod("web", "node-3")
    world.pod("other", "node-3")
    world.api.guarded = {"web"}
    kept = reconcile(world)
    assert world.api.evicted == ["other"]
    assert kept.drains == {"node-3": f"Pod default/web cannot be evicted ({BUDGET.rstrip('.')})"}
    assert world.drains == ["blocked"]
    assert world.reasons()[-1] == "SternpostDrainBlocked"
    # The same refusal is tried again, less and less often, and told once.
    times = []
    for second in range(1, 200):
        world.clock = second
        before = world.api.requests.count("eviction pods")
        assert reconcile(world).drains == kept.drains
        if world.api.requests.count("eviction pods") > before:
            times.append(second)
    assert times == [10, 30, 70, 130, 190]
    assert world.drains == ["blocked"]
    world.api.guarded = set()
    world.clock = 250
    assert reconcile(world).drains == {}
    assert world.api.evicted == ["other", "web"]


def test_a_pod_that_nobody_would_create_anew_is_left_and_named():
    world = ill()
    world.pod("alone", "node-3", owner=None)
    assert "default/alone has no controller" in reconcile(world).drains["node-3"]
    assert world.api.evicted == []


def test_many_obstacles_make_no_long_story():
    world = ill()
    for number in range(10):
        world.pod(f"alone-{number}", "node-3", owner=None)
    text = reconcile(world).drains["node-3"]
    assert text.endswith("; and 7 more")


def test_another_pod_of_the_same_name_is_not_evicted():
    world = ill()
    world.pod("web", "node-3")
    listed = dict(world.api.pods)

    async def scenario():
        original = world.api.list

        async def stale(*arguments):
            page = await original(*arguments)
            world.api.pods["default", "web"]["metadata"]["uid"] = "another"
            return page

        world.api.list = stale  # type: ignore[method-assign]
        return await world.reconcile()

    assert asyncio.run(scenario()).drains == {}
    assert world.api.evicted == []
    assert listed.keys() == world.api.pods.keys()


def test_a_server_that_does_not_answer_blocks_nothing():
    world = ill()
    reconcile(world)
    world.pod("web", "node-3")
    world.clock = 400
    world.api.down = True
    kept = reconcile(world)
    assert (kept.drains, kept.next_in, world.drains[-1]) == ({}, 5, "error")
    world.api.down = False
    world.clock = 1000
    reconcile(world)
    assert world.api.evicted == ["web"]


def test_the_drain_ends_with_the_cordon():
    world = ill()
    world.pod("alone", "node-3", owner=None)
    reconcile(world)
    world.uncordon("node-3")
    assert reconcile(world).drains == {}
