"""The states that panels colour. The names are those of the resources; a test compares them."""

from __future__ import annotations

from tools.dashboards.look import BAD, GOOD, IDLE, INFO, WARN, State

JOB_PHASES = (
    State("Pending", IDLE),
    State("Starting", INFO),
    State("Running", GOOD),
    State("Recovering", WARN),
    State("Suspended", "purple"),
    State("Succeeded", "dark-green"),
    State("Failed", BAD),
)
TRAINER_PHASES = (State("init", IDLE), State("train", GOOD), State("eval", "purple"), State("checkpoint", INFO))
RESTORE_SOURCES = (State("shared-memory", GOOD), State("peer", GOOD), State("storage", INFO), State("none", WARN))
DOWN_OR_UP = (State("down", BAD), State("up", GOOD))
PASSIVE_OR_LEADER = (State("passive", IDLE), State("leader", GOOD))
