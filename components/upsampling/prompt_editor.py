"""The language model that writes what a prompt leaves open, as edits of it (prompt_upsampler_fit.py).

It can not lose a word that says what is there or how it looks: dropping is not among the answers for those.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.upsampling.answer_drafts import MOST_DRAFTED, AnswerDrafts, Before
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
        self.drafts = AnswerDrafts()

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
        """-inf for what is no answer, else 0, (8, V): by _Answered.allowed."""
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
    """A CaptionSession of an editor: each pass through the network gives every row its next answers."""

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
        for row in self._rows:
            row.draft(self.editor.drafts)
        parts = [(0, old), (len(old), new)]
        scores = [
            self._decoder.scores([row.chunk for row in rows], first, [row.ends for row in rows])
            for first, rows in parts
            if rows
        ]
        self._take(torch.cat(scores).float().cpu())
        for number in reversed(range(len(self._rows))):
            if not self._rows[number].chunk:
                captions[self._rows[number].key] = self._rows[number].caption
                self._remove(number)
        return captions

    def _take(self, scores: Tensor) -> None:
        """Sample an answer of each row and after each of its drafts; go on as far as those were right."""
        forbidden = self.editor.forbidden[[at.allowed for row in self._rows for at in row.path]]
        noises = [[row.noise.next(scores.shape[-1]) for _ in row.path] for row in self._rows]
        each = [noise for of_row in noises for noise in of_row]
        answers = iter(sample(scores + forbidden, each, temperature=self.temperature, min_p=self.min_p))
        for number, (row, of_row) in enumerate(zip(self._rows, noises, strict=True)):
            read, ends = len(row.chunk), row.ends
            taken = row.take(list(islice(answers, len(of_row))), self.editor.drafts)
            row.noise.give_back(of_row[taken:])
            self._decoder.retract(number, read - ends[taken - 1])

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


class _Answered(NamedTuple):
    """What was answered of a prompt. inserted: before the word that is next; before: the last two answers."""

    prompt: ReadPrompt
    tokens: EditTokens
    edits: tuple[Edit, ...] = ()
    inserted: tuple[int, ...] = ()
    left: int = MOST_INSERTED  # tokens that may still be inserted
    before: Before = (-1, -1)

    @property
    def word(self) -> tuple[int, ...]:
        """The tokens of the word that is being answered, or of the tail's place."""
        return self.prompt.read[len(self.edits)]

    @property
    def allowed(self) -> int:
        """What may be answered: which of CLOSED, TAIL and DROPPABLE hold."""
        at = len(self.edits)
        if at == len(self.prompt.units):
            return TAIL | CLOSED * (self.left == 0)
        is_closed = self.left == 0 or self.prompt.joins[at]
        may_drop = self.prompt.may_drop(at, self.tokens.decode(self.inserted) if self.inserted else ())
        return CLOSED * is_closed | DROPPABLE * may_drop

    def then(self, answer: int) -> tuple["_Answered", tuple[int, ...]]:
        """What is answered then, and what the network reads first. answer: any but the end."""
        before = (self.before[1], answer)
        if answer not in (self.tokens.keep, self.tokens.drop):
            inserted = (*self.inserted, answer)
            return self._replace(inserted=inserted, left=self.left - 1, before=before), (answer,)
        edit = Edit(self.tokens.decode(self.inserted), answer == self.tokens.keep)
        after = self._replace(edits=(*self.edits, edit), inserted=(), before=before)
        return after, (answer, *after.word)


class _Row:
    """One caption on its way.

    chunk: what the network reads next, nothing once the caption is whole: what is known, and behind it what
    the drafts would have it read. path: what would be answered before each draft, and after the last; ends:
    how much of the chunk is read by then.
    """

    def __init__(self, key: Any, prompt: ReadPrompt, tokens: EditTokens, seed: int) -> None:
        self.key, self.prompt, self.noise, self.caption = key, prompt, RowNoise(seed), ""
        self.path = [_Answered(prompt, tokens)]
        self.drafted: list[int] = []
        self.chunk = [*prompt.prefix, *prompt.read[0]]
        self.ends = [len(self.chunk)]

    def draft(self, drafts: AnswerDrafts) -> None:
        """Guess the next answers."""
        end = self.path[0].tokens.end
        while len(self.drafted) < MOST_DRAFTED:
            answer = drafts.guess(self.path[-1].word, self.path[-1].before)
            if answer is None or answer == end:
                return
            after, read = self.path[-1].then(answer)
            self.path.append(after)
            self.drafted.append(answer)
            self.chunk += read
            self.ends.append(len(self.chunk))

    def take(self, answers: Sequence[int], drafts: AnswerDrafts) -> int:
        """Go on by the first answers, as far as they are the drafts, and one more; how many those are."""
        taken = 1
        while taken < len(answers) and answers[taken - 1] == self.drafted[taken - 1]:
            taken += 1
        for at, answer in zip(self.path, answers[:taken], strict=False):
            drafts.learn(at.word, at.before, answer)
        last, answer = self.path[taken - 1], answers[taken - 1]
        self.path, self.drafted, self.chunk = [last], [], []
        if answer == last.tokens.end:
            tail = last.tokens.decode(last.inserted)
            self.caption = Edits(last.prompt.units, last.edits, tail).applied()
        else:
            after, read = last.then(answer)
            self.path, self.chunk = [after], [*read]
        self.ends = [len(self.chunk)]
        return taken
