"""The language model that writes what a prompt leaves open, as edits of it (prompt_upsampler_fit.py).

It can not lose a word that says what is there or how it looks: dropping is not among the answers for those.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from components.upsampling.caption_session import write_all
from components.upsampling.edit_tokens import EditTokens
from components.upsampling.language_model import LanguageModel
from components.upsampling.lfm2_decoder import Lfm2Decoder
from components.upsampling.prompt_edits import Edit, Edits
from components.upsampling.read_prompt import ReadPrompt
from components.upsampling.sampling_noise import RowNoise, sample

MOST_INSERTED = 96  # tokens, in all
MOST_ROWS = 64  # prompts that are answered together
BEGIN_TOGETHER = 4
MOST_READ = 1024  # prompts that are kept as they were read
CLOSED, TAIL, DROPPABLE = 1, 2, 4  # nothing may be inserted; no word is left; the word may be dropped


class PromptEditor:
    """Edits prompts. The same (prompt, seed) gives the same text."""

    def __init__(self, language_model: LanguageModel) -> None:
        """language_model: with the tokens of edit_tokens.py."""
        self.language_model, self.tokens = language_model, EditTokens(language_model.tokenizer)
        self.read = lru_cache(maxsize=MOST_READ)(partial(ReadPrompt.of, tokens=self.tokens))

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float = 1.0, min_p: float = 0.0
    ) -> list[str]:
        """One caption per prompt, sampled with the noise of its seed; "" for a prompt that is too long."""
        return write_all(self.begin(temperature=temperature, min_p=min_p), prompts, seeds)

    def begin(self, *, temperature: float = 1.0, min_p: float = 0.0) -> "EditSession":
        """Captions that are written side by side, to which others can be added on the way."""
        return EditSession(self, temperature, min_p)

    @cached_property
    def forbidden(self) -> Tensor:
        """-inf for what is no answer, else 0, (8, V): by _Row.answers."""
        tokens, numbers = self.tokens, torch.arange(8)
        forbidden = torch.zeros(8, self.language_model.model.config.vocab_size)
        forbidden[(numbers & CLOSED) > 0] = -torch.inf
        forbidden[:, [tokens.pad, tokens.split, tokens.other]] = -torch.inf
        is_tail = (numbers & TAIL) > 0
        forbidden[:, tokens.keep] = torch.where(is_tail, -torch.inf, 0.0)
        forbidden[:, tokens.drop] = torch.where((numbers & DROPPABLE) > 0, 0.0, -torch.inf)
        forbidden[:, tokens.end] = torch.where(is_tail, 0.0, -torch.inf)
        return forbidden


class EditSession:
    """A CaptionSession of an editor: each pass through the network gives every row its next token."""

    def __init__(self, editor: PromptEditor, temperature: float, min_p: float) -> None:
        self.editor, self.temperature, self.min_p = editor, temperature, min_p
        self._decoder = Lfm2Decoder(editor.language_model.model)
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []  # as the decoder numbers them

    def __len__(self) -> int:
        return len(self._waiting) + len(self._rows)

    def add(self, key: Any, prompt: str, seed: int) -> None:
        self._waiting.append(_Row(key, self.editor.read(prompt), self.editor.tokens, seed))

    def retain(self, is_wanted: Callable[[Any], bool]) -> None:
        self._waiting = deque(row for row in self._waiting if is_wanted(row.key))
        for number in reversed(range(len(self._rows))):
            if not is_wanted(self._rows[number].key):
                self._remove(number)

    def advance(self) -> dict[Any, str]:
        captions = {row.key: "" for row in self._waiting if not row.prompt.can_be_answered}
        self._waiting = deque(row for row in self._waiting if row.prompt.can_be_answered)
        old, new = self._rows, self._new_rows()
        self._rows = old + new
        if not self._rows:
            return captions
        parts = [(0, old), (len(old), new)]
        scores = [self._decoder.scores([row.chunk for row in rows], first) for first, rows in parts if rows]
        forbidden = self.editor.forbidden[[row.answers for row in self._rows]]
        noises = [row.noise for row in self._rows]
        allowed = torch.cat(scores).float().cpu() + forbidden
        tokens = sample(allowed, noises, temperature=self.temperature, min_p=self.min_p)
        for row, token in zip(self._rows, tokens, strict=True):
            row.take(token)
        for number in reversed(range(len(self._rows))):
            if not self._rows[number].chunk:
                captions[self._rows[number].key] = self._rows[number].caption
                self._remove(number)
        return captions

    def _new_rows(self) -> list["_Row"]:
        """Those that begin now: a prompt is read in a pass of its own, so some are waited for."""
        if len(self._waiting) < BEGIN_TOGETHER and len(self._rows) > MOST_ROWS // 8:
            return []
        free = MOST_ROWS - len(self._rows)
        return [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]

    def _remove(self, number: int) -> None:
        self._decoder.remove(number)
        self._rows[number] = self._rows[-1]
        self._rows.pop()


class _Row:
    """One caption on its way: which word of its prompt is being answered, and what was answered."""

    def __init__(self, key: Any, prompt: ReadPrompt, tokens: EditTokens, seed: int) -> None:
        self.key, self.prompt, self.tokens, self.noise = key, prompt, tokens, RowNoise(seed)
        self.edits: list[Edit] = []
        self.inserted: list[int] = []
        self.left = MOST_INSERTED
        self.caption = ""
        # What the network reads next; nothing once the caption is whole.
        self.chunk = [*prompt.prefix, *prompt.read[0]]

    @property
    def answers(self) -> int:
        """What may be answered here: which of CLOSED, TAIL and DROPPABLE hold."""
        at = len(self.edits)
        if at == len(self.prompt.units):
            return TAIL | CLOSED * (self.left == 0)
        is_closed = self.left == 0 or self.prompt.joins[at]
        may_drop = self.prompt.may_drop(at, self.tokens.decode(self.inserted) if self.inserted else ())
        return CLOSED * is_closed | DROPPABLE * may_drop

    def take(self, token: int) -> None:
        """Go on by an answer."""
        if token in (self.tokens.keep, self.tokens.drop):
            self.edits.append(Edit(self.tokens.decode(self.inserted), token == self.tokens.keep))
            self.inserted = []
            self.chunk = [token, *self.prompt.read[len(self.edits)]]
        elif token == self.tokens.end:
            tail = self.tokens.decode(self.inserted)
            self.caption = Edits(self.prompt.units, tuple(self.edits), tail).applied()
            self.chunk = []
        else:
            self.inserted.append(token)
            self.left -= 1
            self.chunk = [token]
