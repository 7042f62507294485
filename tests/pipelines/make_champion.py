"""Make a registered version champion, as a promotion does, without a gate."""

from pipelines.registry.champion import changing
from pipelines.registry.model_registry import Registry


def make_champion(registry: Registry, version: str) -> None:
    with changing(registry) as its:
        its.move(registry.version(version), None)
