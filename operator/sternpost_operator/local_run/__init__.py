"""`sternpost run`: a TrainingJob on this machine, with nodes, operator and memory service as processes.

| file | what it does |
|---|---|
| `state.py` | the state directory: its lock, what a run finds there, fresh start or resume |
| `services.py` | child processes of the run, started again when they die |
| `operator_loop.py` | the operator as a process of its own: reconciles, and writes `progress.json` |
| `supervisor.py` | one run: nodes, services, injections, the end |
| `injection.py`, `faults.py`, `slow.py` | faults: what was asked for and when it is due; doing them |
| `snapshot.py`, `timeline.py`, `report.py` | what is known; events from two snapshots; `report.json`: all pure |
| `view.py`, `plain_view.py`, `summary.py`, `picture.py` | for people |
"""
