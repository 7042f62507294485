"""Whether the head of the Ray that this process works on is still there.

A lost head is the end of everything that runs on its cluster. Left alone, Ray's driver waits for it for a
minute and then exits without a word, or aborts where a new head has taken the old one's place.
"""

import time
from collections import Counter
from collections.abc import Callable

from pipelines.execution.ray_connection import NO_PROXY

ASK_SECONDS = 10.0  # for one answer
LOST_SECONDS = 20.0  # without any answer; with what follows, well within Ray's own minute
# Of gRPC: as soon as the head answers again, a call reaches it.
CHANNEL = [*NO_PROXY, ("grpc.max_reconnect_backoff_ms", 1000)]


class HeadNode:
    """The head that this process, which has joined Ray, is connected to. address: its name in errors."""

    def __init__(self, address: str) -> None:
        import ray
        from ray._private.grpc_utils import init_grpc_channel  # not public; it knows of tokens and TLS
        from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

        context = ray.get_runtime_context()
        self.name = f"the Ray at '{address}'"
        self._node = bytes.fromhex(context.get_node_id())
        self._head = NodeInfoGcsServiceStub(init_grpc_channel(context.gcs_address, CHANNEL))

    def watch(self, patience: float = LOST_SECONDS) -> Callable[[], str | None]:
        """A function that says why nothing on this Ray will ever end; None while its head answers, or may.

        It counts from now on how long there is no answer. patience: seconds without one.
        """
        import grpc
        from ray.core.generated.gcs_service_pb2 import CheckAliveRequest  # type: ignore[attr-defined]  # generated

        answered = time.monotonic()
        question = CheckAliveRequest(node_ids=[self._node])

        def fault() -> str | None:
            nonlocal answered
            try:
                reply = self._head.CheckAlive(question, timeout=ASK_SECONDS)
            except grpc.RpcError:
                silent = time.monotonic() - answered
                if silent < patience:
                    return None
                return f"{self.name} has lost its head, which has not answered for {silent:.0f} s"
            answered = time.monotonic()
            if all(reply.raylet_alive):
                return None
            return f"{self.name} has another head than before, or has lost the node of this command"

        return fault

    def answers(self) -> bool:
        """Whether the head and the node of this process are there."""
        return self.watch(patience=0.0)() is None

    def total(self) -> dict[str, float] | None:
        """The resources of all living nodes together, under Ray's names; None while the head does not answer.

        Ray's own call would wait for the head.
        """
        import grpc
        from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]  # generated
        from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest  # type: ignore[attr-defined]  # so

        alive = GetAllNodeInfoRequest(state_filter=GcsNodeInfo.ALIVE)
        try:
            reply = self._head.GetAllNodeInfo(alive, timeout=ASK_SECONDS)
        except grpc.RpcError:
            return None
        total: Counter[str] = Counter()
        for node in reply.node_info_list:
            total.update(node.resources_total)
        return dict(total)
