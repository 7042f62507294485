"""The card of a registered model, as Mitchell 2019 asks for: what it was made from, how, how well, what not.

Markdown, from the receipts of the outputs behind it alone, so that the same outputs give the same card. It is
the description of the version on MLflow's page and model_card.md of its run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluation.results import PROMPTS_DIGEST, REFERENCE_DIGEST, Metrics
from components.reporting.quality_tables import (
    DIGEST_SHOWN,
    QualityTable,
    coverage_table,
    distances_table,
    following_tables,
    geneval_tables,
)
from pipelines.errors import ConfigError
from pipelines.registry.lineage import Lineage
from pipelines.registry.model_registry import REGISTERED_NAME, registry_of
from pipelines.registry.model_version import WithdrawnRecords
from pipelines.store.receipts import Receipt

CARD_FILE = "model_card.md"
DESCRIPTION_LENGTH = 5000  # characters; what MLflow's database takes for the description of a version
REASONS_SHOWN = 6
METHODS = {
    "cd": "consistency distillation",
    "ct": "consistency training",
    "mean_flow": "MeanFlow distillation",
}
LIMITS = {
    "toy": (
        "It draws coloured shapes on plain backgrounds, what the toy web shows, and understands English"
        " descriptions of them. It knows nothing else."
    ),
    "open": (
        "No scorer covers its domain: how well prompts are followed was not measured. It draws what its"
        " corpus shows, with the corpus's biases."
    ),
}
FOR_ALL = (
    "Its numbers are of the protocol below and compare with no other.",
    "Neither its prompts nor its images are filtered for what is harmful; its images should be marked as made"
    " by a model.",
)


def model_card(
    digest: str,
    receipts: Mapping[tuple[str, str], Receipt | None],
    lineage: Lineage,
    metrics: Metrics,
) -> str:
    """The card of the model with this digest. receipts: of all that is behind it (lineage.behind)."""
    by_stage: dict[str, list[Receipt]] = {}
    for (stage, _), receipt in receipts.items():
        if receipt is not None:
            by_stage.setdefault(stage, []).append(receipt)
    domain = next((r.config.get("domain") for r in by_stage.get("evaluate", [])), None)
    sections = {
        "Data": _data(by_stage, lineage),
        "Captions": _captions(by_stage),
        "Training": _training(by_stage),
        "Limits": [f"- {text}" for text in (*filter(None, [LIMITS.get(str(domain))]), *FOR_ALL)],
        "Evaluation": _evaluation(metrics),
    }
    libraries = next((receipts[-1].libraries for receipts in by_stage.values()), {})
    lines = [
        f"# Model {digest[:12]}",
        "",
        "A text-to-image model that generates in one step: a consistency model, distilled from a"
        " text-conditioned diffusion transformer.",
    ]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    made = ", ".join(f"{name} {version}" for name, version in libraries.items())
    return "\n".join([*lines, "", f"Made with {made}." if made else ""]).rstrip() + "\n"


def registered_card(home: Path, reference: str, *, name: str = REGISTERED_NAME) -> str:
    """The card of a version or alias, under what is known since. Raises ConfigError where it has none."""
    registry = registry_of(home, None, name)
    with registry.tracker.answering():
        version = registry.version(reference)
        if (card := registry.logged_text(version, CARD_FILE)) is None:
            raise ConfigError(f"{version.uri} has no card: an older version of Straightshot registered it")
    return with_withdrawals(card, version.withdrawn)


def with_withdrawals(card: str, withdrawn: WithdrawnRecords | None) -> str:
    """The card, under what is known since: that its model learned from records that were withdrawn."""
    return card if withdrawn is None else f"> **This model was {withdrawn.note}.**\n\n{card}"


def description_of(card: str) -> str:
    """The card as MLflow's database takes it."""
    more = "\n\n… the whole of it is model_card.md of the run."
    return card if len(card) <= DESCRIPTION_LENGTH else card[: DESCRIPTION_LENGTH - len(more)] + more


def _data(by_stage: Mapping[str, Sequence[Receipt]], lineage: Lineage) -> Iterator[str]:
    for receipt in by_stage.get("filter", []):
        counts = receipt.counts
        yield (
            f"- Snapshot `{receipt.snapshot}`, corpus {_short(receipt.inputs.get('corpus', []))}:"
            f" {counts.in_:,} records, {counts.kept:,} kept, {counts.rejected + counts.errored:,} rejected"
            f"{_reasons(receipt.reasons)}."
        )
        config = receipt.config
        languages = config.get("alt_text", {}).get("languages") or ["any"]
        threshold = config.get("judge_threshold")
        yield f"- Filter: alt texts in {', '.join(languages)}; judge's threshold {threshold}."
    tars = [tar for tar in lineage.tars if tar.name.startswith("train")]
    size = sum(tar.bytes for tar in tars) / 1e6
    yield f"- Trained on {len(tars):,} tars, {size:,.1f} MB; lineage.json lists each with its sha256."


def _reasons(reasons: Mapping[str, int]) -> str:
    most = sorted(reasons.items(), key=lambda item: -item[1])[:REASONS_SHOWN]
    return f" ({', '.join(f'{name} {count:,}' for name, count in most)}, …)" if most else ""


def _captions(by_stage: Mapping[str, Sequence[Receipt]]) -> Iterator[str]:
    for receipt in by_stage.get("annotators", []):
        info = receipt.info
        names = (
            f"{kind} {info.get(kind)} {info.get(f'{kind}_revision') or ''}" for kind in ("captioner", "judge")
        )
        yield f"- {'; '.join(name.strip() for name in names)}."
        truth = info.get("caption_truth")
        for kind, shares in truth.items() if isinstance(truth, dict) else ():
            says = ", ".join(f"{name.replace('_', ' ')} {share:.3f}" for name, share in shares.items())
            yield f"- Its {kind} captions of held-out images: {says}."
    for receipt in by_stage.get("recaption", []):
        if server := receipt.config.get("server"):
            yield f"- Captions by {server['model']}, asked over a server."
    for receipt in by_stage.get("train", []):
        blend = receipt.config.get("blend", {})
        yield f"- Blend: {', '.join(f'{kind} {share:g}' for kind, share in blend.items())}."


def _training(by_stage: Mapping[str, Sequence[Receipt]]) -> Iterator[str]:
    for stage, what in (("train", "Teacher"), ("distill", "Student")):
        for receipt in by_stage.get(stage, []):
            config = receipt.config
            budget = ", ".join(
                f"{name.replace('_', ' ')} {config[name]:,}"
                for name in ("images", "batch_size", "workers", "seed")
                if isinstance(config.get(name), int)
            )
            autoencoder = config.get("autoencoder", {}).get("model")
            latents = f"; autoencoder {autoencoder}" if autoencoder else ""
            yield f"- {what}: {budget}{latents}; {_settings(config)}."


def _settings(config: Mapping[str, Any]) -> str:
    """Network and process, or the consistency distillation, in a few words."""
    network, consistency = config.get("network"), config.get("consistency")
    if isinstance(network, dict):
        guide = config.get("autoguide")
        beside = f"; autoguide of {_named(guide, 'width', 'depth', 'images', 'scale')}" if guide else ""
        process = config.get("diffusion", {}).get("process")
        return f"DiT of {_named(network, 'width', 'depth', 'patch', 'image_size')}{beside}; {process}"
    settings = consistency.items() if isinstance(consistency, dict) else ()
    method = METHODS[(consistency or {}).get("method", "cd")]
    return f"{method}, {', '.join(f'{name} {value}' for name, value in settings if name != 'method')}"


def _named(settings: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {settings.get(name)}" for name in names)


def _evaluation(metrics: Metrics) -> Iterator[str]:
    protocol = metrics.protocol
    digests = (
        f"{name} `{str(protocol.get(name, '–'))[:DIGEST_SHOWN]}`"
        for name in (PROMPTS_DIGEST, REFERENCE_DIGEST)
    )
    yield f"Protocol: {', '.join(digests)}."
    others = (coverage_table(metrics), distances_table(metrics))
    for table in (*following_tables(metrics), *geneval_tables(metrics), *others):
        if table is not None:
            yield from ("", f"{table.title}. {table.note}", "", *_markdown(table))


def _markdown(table: QualityTable) -> Iterator[str]:
    yield f"| | {' | '.join(table.columns)} |"
    yield "|---" * (len(table.columns) + 1) + "|"
    for row in table.rows:
        yield f"| {row.label} | {' | '.join(cell.text for cell in row.cells)} |"


def _short(digests: Iterable[str]) -> str:
    return ", ".join(f"`{digest[:DIGEST_SHOWN]}`" for digest in digests) or "unknown"
