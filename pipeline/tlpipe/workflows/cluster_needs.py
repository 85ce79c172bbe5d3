"""How many workers the nodes of a cluster have room for."""

from __future__ import annotations

from dataclasses import dataclass

from tlpipe.errors import ClusterError, DeviceError


@dataclass(frozen=True)
class Needs:
    """What one worker holds of its node.

    Attributes
    ----------
    cpus, gpus : int
    """

    cpus: int = 1
    gpus: int = 0

    def places(self, resources: dict[str, float]) -> int:
        """How many workers a node with some resources has room for."""
        rooms = [int(resources.get("CPU", 0) // self.cpus)]
        if self.gpus:
            rooms.append(int(resources.get("GPU", 0) // self.gpus))
        return min(rooms)


def needs_of(nodes: list[dict[str, float]], *, gpu: bool, threads: int | None) -> Needs:
    """What a worker takes, so that at least one node has room for one."""
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if gpu and not with_gpus:
        raise DeviceError(
            f"No node of the Ray cluster has a GPU; it has {len(nodes)} node(s).",
            hint="Use --device cpu, or start nodes with GPUs (ray start --num-gpus N).",
        )
    needs = Needs(threads or 1)
    if gpu:
        share = min(node.get("CPU", 0) // node["GPU"] for node in with_gpus)
        needs = Needs(threads or max(1, int(share)), 1)
    if not any(map(needs.places, nodes)):
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        raise ClusterError(
            f"No node of the Ray cluster has room for a worker of {needs.cpus} core(s); the largest"
            f" one has {most}.",
            hint="Ask for fewer with --threads, or start larger nodes (ray start --num-cpus N).",
        )
    return needs
