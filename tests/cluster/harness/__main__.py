"""`python -P -m harness COMMAND`, with PYTHONPATH=tests/cluster: a cluster of this harness by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import folders, images
from harness.cluster import NODES, Cluster, down, require_packages, require_root
from harness.commands import HarnessError
from harness.report import say, step


def _up(options: argparse.Namespace) -> None:
    require_root()
    require_packages()
    cluster = Cluster(options.dir)
    if not cluster.up:
        cluster.create(options.nodes, [images.build(name) for name in images.ALL] if options.images else [])
    cluster.kubectl("apply", "--server-side", "-f", folders.ROOT / "crds")
    sys.stdout.write(f"{cluster.kubeconfig}\n")


def _down(options: argparse.Namespace) -> None:
    require_root()
    down(options.dir)


def _status(options: argparse.Namespace) -> None:
    cluster = Cluster(options.dir)
    say(f"{options.dir}: {'up' if cluster.up else 'down'}")
    if cluster.up:
        sys.stdout.write(cluster.kubectl("get", "nodes", "-o", "wide"))
        sys.stdout.write(f"{cluster.kubeconfig}\n")


def _images(options: argparse.Namespace) -> None:
    require_root()
    require_packages()
    for name in options.names or images.ALL:
        images.build(name)


def _load(options: argparse.Namespace) -> None:
    cluster = Cluster(options.dir)
    for name in options.names or images.ALL:
        built = images.build(name)
        with step(f"loading {built}"):
            cluster.load([built])


def _build(_: argparse.Namespace) -> None:
    require_root()
    require_packages()
    Cluster(folders.default_cluster())
    images.base()


def main() -> None:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(prog="python -P -m harness", description="A Kubernetes cluster for the tests.")
    parser.add_argument("--dir", type=Path, default=folders.default_cluster(), help="the cluster's folder")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="install Debian's packages, build the binaries and the base image")
    build.set_defaults(do=_build)
    up = commands.add_parser("up", help="make the cluster, unless it is there; prints the path of its kubeconfig")
    up.add_argument("--nodes", type=int, default=NODES)
    up.add_argument("--images", action="store_true", help="build all images, and have them in its nodes from the start")
    up.set_defaults(do=_up)
    commands.add_parser("down", help="remove the cluster").set_defaults(do=_down)
    commands.add_parser("status", help="whether it is up").set_defaults(do=_status)
    for name, do, text in (
        ("images", _images, "build images"),
        ("load", _load, "build images and load them into the nodes"),
    ):
        command = commands.add_parser(name, help=f"{text}: {', '.join(images.ALL)}; all unless named")
        command.add_argument("names", nargs="*", choices=[*images.ALL, []], metavar="IMAGE")
        command.set_defaults(do=do)
    options = parser.parse_args()
    try:
        options.do(options)
    except HarnessError as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    main()
