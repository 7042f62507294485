"""The prompt upsampler of a trained model: loaded or fitted on its captions, with its checks and the judge.

Imports torch, so the stage imports it when it runs.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from components.captioning.config import FIT, NONE
from components.captioning.kinds import ALT, captions_of
from components.judge.judge import Judge
from components.shards.index import TRAIN
from components.shards.reader import read_split
from components.upsampling.content_words import words_of
from components.upsampling.language_model import LanguageModel
from components.upsampling.partial_texts import RecordCaptions
from components.upsampling.prompt_checks import PromptChecks, cosines
from components.upsampling.prompt_upsampler import PromptUpsampler, Writer, writer_of
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from components.upsampling.prompt_upsampler_fit import fit_prompt_editor
from components.upsampling.upsampler_card import UpsamplerCard, UpsamplerUse
from pipelines.stage import Work
from pipelines.stages.learning.fit_beside import fit_beside
from pipelines.stages.model_runtime import judge_name

RECORDS = 100_000  # that an upsampler is fitted on, at most
CALIBRATION_PAIRS = 1_000  # short and long captions that the similarity's threshold is taken from, at most
SIMILARITY_QUANTILE = 0.02  # of these pairs are less similar than the threshold
COMPLETE_QUANTILE = 0.25  # of the long captions have fewer words than a prompt that says all


def make_upsampler(work: Work, shards: Sequence[Path]) -> PromptUpsampler | None:
    """The upsampler that the config names, or one fitted on the captions of the training records.

    None where the DiT will see no long captions. Raises InputError where the named one is none, or no record
    has a long caption; StageFailed when the fit diverges.
    """
    config: PromptUpsamplerConfig = work.config.upsampler
    if config.model == NONE or (config.model == FIT and not work.config.blend.share("long")):
        return None
    records = list(islice(record_captions(shards), RECORDS))
    if config.model == FIT:
        fit = partial(fit_prompt_editor, records, config)
        writer: Writer = fit_beside(work, "upsampler", config.training.images, "captions", fit)
    else:
        writer = writer_of(LanguageModel.load(config.model, revision=config.revision))
    annotators = work.inputs.get("annotators", ())
    judge = Path(judge_name(annotators[0]).removeprefix("local-dir:")) if annotators else None
    if "similarity" not in config.checks:
        judge = None
    return PromptUpsampler(writer, PromptChecks(_card(config, records, judge), judge))


def record_captions(shards: Sequence[Path]) -> Iterator[RecordCaptions]:
    """The captions of every training record that has a long one, in shard order."""
    for index in shards:
        for sample in read_split(index, TRAIN):
            captions = captions_of(sample.meta)
            if long := captions["long"]:
                yield RecordCaptions(sample.key, long, captions["short"], captions[ALT])


def _card(
    config: PromptUpsamplerConfig, records: Sequence[RecordCaptions], judge: Path | None
) -> UpsamplerCard:
    """The config's settings; thresholds that it leaves open are taken from the captions."""
    min_similarity = config.min_similarity
    if judge is not None and min_similarity is None:
        min_similarity = _usual_similarity(records, Judge.load(f"local-dir:{judge}"))
    words = [len(words_of(record.long)) for record in records]
    return UpsamplerCard(
        **config.model_dump(include=set(UpsamplerUse.model_fields)),
        min_similarity=min_similarity,
        complete_words=int(np.quantile(words, COMPLETE_QUANTILE)) if words else None,
    )


def _usual_similarity(records: Sequence[RecordCaptions], judge: Judge) -> float | None:
    """What nearly all pairs of a short and a long caption reach; None where there is none."""
    pairs = list(islice(((r.short, r.long) for r in records if r.short), CALIBRATION_PAIRS))
    if not pairs:
        return None
    short, long = (judge.text_features(texts) for texts in zip(*pairs, strict=True))
    return round(float(np.quantile(cosines(short, long), SIMILARITY_QUANTILE)), 4)
