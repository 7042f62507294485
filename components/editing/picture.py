"""What was given, what was made of it, and the truth, of every edit: one picture."""

from PIL import Image

from components.editing.measure import EditResults
from components.reporting.grid import GridColumn, draw_grid

IMAGES = 8  # the first ones: none is chosen
CELL = 64  # pixels


def draw_results(results: EditResults, images: int = IMAGES) -> Image.Image:
    """A row for each of the first images: its caption, the truth, and each edit's start and result."""
    steps = {row.edit: row.steps for row in results.measurement.rows if row.steps is not None}
    columns = [GridColumn("truth", 0, results.held_out.images[:images], "held out")]
    for edit, given in results.given.items():
        columns.append(GridColumn(edit, 0, given[:images], "given"))
        columns.append(GridColumn("", steps[edit], results.made[edit][:images]))
    return draw_grid(results.held_out.captions[:images], columns, CELL)
