"""The Redis that the chart brings, and one that it does not."""

from __future__ import annotations

from helm_chart import container_of, environment_of, find, render


def test_what_was_acknowledged_is_on_disk_and_nothing_is_dropped() -> None:
    config = find(render({}), "ConfigMap", "sternpost-redis")["data"]["redis.conf"].splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "dir /data"} <= set(config)


def test_the_password_is_long_and_in_no_argument() -> None:
    objects = render({})
    secret = find(objects, "Secret", "sternpost-redis")["stringData"]
    assert len(secret["password"]) >= 32
    assert secret["auth.conf"] == f'requirepass "{secret["password"]}"\n'
    container = container_of(objects, "sternpost-redis")
    assert secret["password"] not in str(container)
    assert environment_of(container)["REDISCLI_AUTH"]["secretKeyRef"]["name"] == "sternpost-redis"
    memory = environment_of(container_of(objects, "sternpost-memory"))["STERNPOST_MEMORY_REDIS_PASSWORD"]
    assert memory["secretKeyRef"] == {"name": "sternpost-redis", "key": "password"}


def test_a_password_of_ones_own_may_hold_what_redis_would_read_as_syntax() -> None:
    secret = find(render({"redis": {"password": 'a"b\\c#'}}), "Secret", "sternpost-redis")["stringData"]
    assert secret["password"] == 'a"b\\c#'
    assert secret["auth.conf"] == 'requirepass "a\\"b\\\\c#"\n'


def test_a_secret_of_ones_own_takes_the_place_of_the_charts() -> None:
    objects = render({"redis": {"existingSecret": "mine"}})
    assert "Secret" not in {each["kind"] for each in objects}
    for name, variable in [
        ("sternpost-redis", "REDISCLI_AUTH"),
        ("sternpost-memory", "STERNPOST_MEMORY_REDIS_PASSWORD"),
    ]:
        assert environment_of(container_of(objects, name))[variable]["secretKeyRef"]["name"] == "mine"


def test_a_redis_of_ones_own() -> None:
    external = {"url": "rediss://redis.example:6380/1", "existingSecret": "own", "key": "pw"}
    objects = render({"redis": {"enabled": False, "external": external}})
    assert "StatefulSet" not in {each["kind"] for each in objects}
    container = container_of(objects, "sternpost-memory")
    assert "--store=rediss://redis.example:6380/1" in container["args"]
    reference = environment_of(container)["STERNPOST_MEMORY_REDIS_PASSWORD"]["secretKeyRef"]
    assert reference == {"name": "own", "key": "pw"}


def test_a_claim_of_the_asked_size_or_none() -> None:
    values = {"redis": {"persistence": {"size": "3Gi", "storageClassName": "fast"}}}
    (claim,) = find(render(values), "StatefulSet", "sternpost-redis")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    without = find(render({"redis": {"persistence": {"enabled": False}}}), "StatefulSet", "sternpost-redis")
    assert "volumeClaimTemplates" not in without["spec"]


def test_only_the_memory_service_reaches_redis() -> None:
    spec = find(render({}), "NetworkPolicy", "sternpost-redis")["spec"]
    assert spec["egress"] == []
    (rule,) = spec["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "memory"
    assert "namespaceSelector" not in peer


def test_a_random_password_is_another_one_for_each_release() -> None:
    one, two = (
        find(render({}, release=release), "Secret", f"{release}-sternpost-redis")["stringData"]["password"]
        for release in ("one", "two")
    )
    assert one != two
