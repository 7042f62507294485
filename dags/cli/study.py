"""What `straightshot study` does and prints: the trainings, the table, and the published signs beside it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.reporting.study_texts import estimate_text, sign_text
from components.studies.definition import Study
from dags.cli.console import console, plain_table
from dags.cli.run import write_page
from dags.interrupts import keyboard_interrupts
from pipelines.config import ray_of
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.store.home import home_folder, home_path, open_home
from pipelines.studies import read_study, studies
from pipelines.studies.run import Cell, StudyResult, cells, run_study, unfinished


@dataclass(frozen=True)
class StudyRequest:
    """The options of one `straightshot study`."""

    name: str
    preset: str
    overrides: tuple[str, ...] = ()
    seeds: int | None = None
    home: Path | None = None
    ray: str | None = None

    @cached_property
    def study(self) -> Study:
        return read_study(self.name)

    @cached_property
    def cells(self) -> list[Cell]:
        seeds = self.seeds or self.study.seeds
        return cells(self.study, self.preset, self.overrides, home_folder(self.home), seeds)


def list_studies() -> None:
    """Every study that ships with Straightshot, with its question."""
    table = plain_table("study", "question", ">trainings")
    for name in studies():
        study = read_study(name)
        table.add_row(name, study.question, str(len(study.variants) * study.seeds))
    console().print(table)


def print_planned(request: StudyRequest) -> None:
    """How many trainings there are, and which are still to be made."""
    home = home_path(request.home)
    missing = unfinished(request.study, request.cells, home)
    terminal = console()
    terminal.print(f"{len(request.cells)} trainings, {len(missing)} of them to be made:")
    for cell in missing:
        terminal.print(f"  {cell.variant}, seed {cell.seed}", markup=False, highlight=False)


def study_of(request: StudyRequest) -> StudyResult:
    """Run the study, and put it on the report page."""
    planned, home = request.cells, open_home(request.home)
    config = planned[0].config
    address = ray_of(config, request.overrides, request.ray)
    name = Path(request.name).stem
    with (
        Engine(address, config.workers, insecure=config.insecure) as engine,
        keyboard_interrupts(),
    ):
        result = run_study(name, request.study, planned, home, engine, Progress())
    write_page(home)
    return result


def print_study(result: StudyResult) -> None:
    """The table, and what agrees with what was published and what does not."""
    table, terminal = result.table, console()
    seeds = f"{table.seeds} seed{'s' * (table.seeds != 1)}"
    terminal.print(f"{table.title} ({table.model}, {seeds}; mean and 95% interval over seeds):")
    shown = plain_table("variant", *(f">{measure}" for measure in table.measures))
    for variant, row in table.rows.items():
        shown.add_row(variant, *(estimate_text(cell) for cell in row))
    terminal.print(shown)
    for sign in table.signs:
        terminal.print(sign_text(sign), markup=False, highlight=False, soft_wrap=True)
    terminal.print(f"{result.path}", markup=False, highlight=False, soft_wrap=True)
