"""This machine as a cluster: nodes are process groups, Pods are processes, the control plane is a folder.

Nothing is imported here, for the node's agent starts in a fraction of a second only with the standard library.
What others use:

`paths`
    `LocalPaths(state_dir, memory_dir=None)`: `.state_dir .memory_dir .objects .logs .volumes .ports .state_id`,
    `.node_scratch(node) .node_memory(node)`, `.control_plane` (the `file://` URI),
    `.markers(node=None) -> dict[str, str]`: environment that marks a process (and all its descendants) as this
    state folder's; give it to every service that is started beside the nodes.
`object_store`
    `ObjectStore(objects)`: `get(kind, name) put(kind, name, value, secret=, durable=) delete(kind, name) list_all(kind)`,
    `get_job(name) put_job(job) delete_job(name) list_jobs()`. `put_job` creates when `metadata.resourceVersion` is unset,
    else replaces exactly that version; `ConflictError` otherwise. `DamagedObjectError` (an `OSError`): a job's file is garbage.
`cluster`
    `LocalCluster(paths, *, images=None, memory_url=None)`: the `Cluster`; `await .aclose()` at the end.
    `memory_url` None: not known yet, incidents wait; "": there is none, they count as taken.
    `.images`, `.memory_url` may be set later. `.store` is its `ObjectStore`.
`node_process`
    `start_node(paths, name, *, environment=None, supervisor_pid=None) -> subprocess.Popen[bytes]`: the agent, in a
    session of its own.
    `stop_node(paths, name)`: SIGTERM to the agent; it ends its Pods gracefully, removes its folders and exits.
    `kill_node(paths, name)`: SIGKILL to all of the node, its memory and scratch removed with it.
    `find_orphans(paths) -> list[ProcessIdentity]`, `end_orphans(paths) -> int`: whatever an earlier run left.
    `cleanup(paths)`: removes the memory folder.
    `node_names(paths)`, `node_processes(paths, name) -> list[ProcessIdentity]`.
`processes`
    `ProcessIdentity(pid, start_time)`, `identify(pid)`, `is_alive(identity)`, `send_signal(identity, signal)`,
    `container_processes(paths.state_id, pod_uid, container) -> list[ProcessIdentity]`: for injecting faults.
"""
