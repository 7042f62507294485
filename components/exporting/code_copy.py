"""Modules of this package as files that need it no more: what an exported model is run by.

The very sources are copied, so what an export runs cannot drift from what made the model.
"""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
IMPORT = re.compile(rf"^( *)from {PACKAGE.name}\.([\w.]+) import", re.MULTILINE)
LEFT_OUT = ("upsampling.",)  # imported where it is used, which an exported model never does


def copy_code(module: str, folder: Path, name: str) -> None:
    """Write `module` (such as "diffusion.dit") to `folder` as `name`.py, and beside it all that it imports.

    The modules lie side by side, diffusion/dit.py as straightshot_diffusion_dit.py, and import each other
    relatively: the only layout that diffusers takes from a folder and from the Hub. Of a folder's modules it
    copies those alone that the first one names, so that one names them all.
    """
    sources: dict[str, str] = {}
    pending = [module]
    while pending:
        if (current := pending.pop()) not in sources:
            sources[current] = (PACKAGE / current.replace(".", "/")).with_suffix(".py").read_text("utf-8")
            pending += _needed(sources[current])
    for current, source in sources.items():
        text = (
            f"# {PACKAGE.name}/{current.replace('.', '/')}.py of Straightshot\n{IMPORT.sub(_beside, source)}"
        )
        if current == module:
            others = sorted(set(sources) - {module, *_needed(source)})
            text += "\n# diffusers copies the modules that this file names.\n" * bool(others)
            text += "".join(f"from .{_flat(other)} import __name__ as _\n" for other in others)
        file = name if current == module else _flat(current)
        (folder / f"{file}.py").write_text(text, "utf-8")


def _needed(source: str) -> list[str]:
    """The modules of this package that a source imports, at its top or in a function."""
    return [module for _, module in IMPORT.findall(source) if not module.startswith(LEFT_OUT)]


def _beside(match: re.Match[str]) -> str:
    """An import of this package as one from the same folder."""
    indent, module = match.groups()
    return match[0] if module.startswith(LEFT_OUT) else f"{indent}from .{_flat(module)} import"


def _flat(module: str) -> str:
    return f"straightshot_{module.replace('.', '_')}"
