"""What a study is: one question, the variants that answer it, and what is measured of each. Without torch.

A study is data, one YAML file in pipelines/studies; a new one is a file.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Overrides = tuple[str, ...]  # as --set takes them: stage.field=value


class Measure(BaseModel):
    """One number of every variant: a column of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    label: str
    value: str = Field(description="dotted, in an entry of metrics.json: prompt_following_as_is.short")
    steps: int | None = Field(None, ge=1, description="the model is sampled with; null: its own")
    higher_is_better: bool = True


class Sign(BaseModel):
    """A published finding, as far as it has a sign: by this measure, one variant is better than another."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str
    better: str
    worse: str
    source: str


class Study(BaseModel):
    """Variants of one run's config, each trained with several seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    question: str
    model: Literal["teacher", "student"] = Field(description="which of a run's two models is measured")
    seeds: int = Field(3, ge=1)
    seeded: tuple[str, ...] = Field(min_length=1, description="the config's seeds that vary")
    base: Overrides = Field((), description="of every variant; the command's --set goes before them")
    variants: dict[str, Overrides] = Field(min_length=2)
    measures: tuple[Measure, ...] = Field(min_length=1)
    signs: tuple[Sign, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> "Study":
        labels = [measure.label for measure in self.measures]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two measures have the same label: {', '.join(labels)}")
        for sign in self.signs:
            if sign.measure not in labels:
                raise ValueError(f"a sign names the measure '{sign.measure}'; there are {', '.join(labels)}")
            for variant in (sign.better, sign.worse):
                if variant not in self.variants:
                    names = ", ".join(self.variants)
                    raise ValueError(f"a sign names the variant '{variant}'; there are {names}")
        return self

    def measure(self, label: str) -> Measure:
        """The measure of that label."""
        return next(measure for measure in self.measures if measure.label == label)
