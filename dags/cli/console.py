"""Where every command prints its tables, and how they look."""

from rich.console import Console
from rich.table import Table

LOG_COLUMNS = 120  # the width of what goes to a file or a pipe


def console(log_columns: int = LOG_COLUMNS) -> Console:
    """The terminal at its own width, or a file or a pipe at `log_columns`."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=log_columns)


def plain_table(*columns: str) -> Table:
    """A table without lines; '>' before a column's name puts it to the right. Only `why` may wrap."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=name != "why"
        )
    return table
