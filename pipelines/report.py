"""The run's page, HOME/report.html.

Its data is gathered in report_data.py and rendered by components/reporting/report.py; both are imported when
a page is written, since a run with nothing to do should not wait for its plots.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.planning.planned import Planned

PAGE = "report.html"


def write_run_report(home: Path, config: "RunConfig", planned: "Sequence[Planned]") -> Path:
    """Write the page from the stages of the plan that are fresh, and return its path."""
    from components.reporting.report import write_report
    from pipelines.report_data import collect

    return write_report(home / PAGE, collect(home, config, planned))
