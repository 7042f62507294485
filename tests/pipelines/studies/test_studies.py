"""The studies that ship: every variant is a config of its own."""

import pytest

from pipelines.errors import ConfigError
from pipelines.presets import DEFAULT_PRESET
from pipelines.studies import read_study, studies
from pipelines.studies.run import cells


@pytest.mark.parametrize("name", studies())
def test_every_variant_of_a_study_fits_the_config(tmp_path, name):
    study = read_study(name)
    planned = cells(study, DEFAULT_PRESET, [], tmp_path, 2)
    assert len(planned) == 2 * len(study.variants)
    configs = [cell.config.model_dump_json() for cell in planned]
    assert len(set(configs)) == len(configs)  # every training is another


def test_an_unknown_study_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'captions'"):
        read_study("caption")


def test_a_variant_that_is_measured_otherwise_is_refused(tmp_path):
    study = read_study("captions")
    changed = study.model_copy(
        update={"variants": {**study.variants, "fewer": ("evaluate.prompts_per_form=2",)}}
    )
    with pytest.raises(ConfigError, match="the variant 'fewer' sets evaluate"):
        cells(changed, DEFAULT_PRESET, [], tmp_path, 1)
