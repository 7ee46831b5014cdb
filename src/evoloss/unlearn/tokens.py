"""Token ids of examples, with the answer's tokens marked: the same in training and evaluation.

A question goes through the tokenizer's chat template, up to where the template itself puts the
assistant's words; without one it gets lines of `Question:` and `Answer:`. Running text goes in as
it is. What is to be predicted is the answer and, in a dialogue, the token that ends it; never the
prompt. Prompt and answer are joined as text before they become tokens, as a model has seen them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet, Example
from evoloss.unlearn.data.examples import some_rows
from evoloss.unlearn.log_probs import Sequences
from evoloss.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = "Question: {prompt}\nAnswer:"
# Templates that write the date get this one, as OpenUnlearning's do: a prompt that changes from
# day to day would make stored reference log-probabilities wrong.
_DATE = "10 Apr 2025"
_ANSWER = "<<the answer stands here>>"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """One example, or one piece of a long text, as tokens.

    start: where the tokens to be predicted begin; ends: whether the last one is the end token.
    example: the place of the example in its set, from 0.
    """

    ids: Ids
    start: int
    ends: bool
    example: int

    @property
    def prompt(self) -> Ids:
        """What is given."""
        return self.ids[: self.start]

    @property
    def answer(self) -> Ids:
        """What is to be predicted, without the end token."""
        return self.ids[self.start : len(self.ids) - self.ends]


@dataclass(frozen=True)
class EncodedSet:
    """A set as tokens. notes: what was done to it, to be told."""

    rows: tuple[Encoded, ...]
    notes: tuple[str, ...] = ()


class Encoder:
    """Turns examples into tokens as one tokenizer, and the model it belongs to, wants them.

    end: the token that ends an answer; pad: what fills rows up; begin: what every text starts with.
    note: which template is used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, most: int | None = None) -> None:
        """most: tokens that the model takes, if that is known.

        Raises: UserError if the tokenizer has no end token or a template that fails.
        """
        self._tokenizer = tokenizer
        self._most = most
        self._chat = bool(tokenizer.chat_template)
        self.begin = self._beginning()
        self.end = self._ending()
        pad = tokenizer.pad_token_id
        self.pad: int = self.end if pad is None else pad
        self.note = (
            "prompts use the tokenizer's chat template"
            if self._chat
            else f"the tokenizer has no chat template: prompts are {PLAIN_TEMPLATE!r}"
        )

    def prompt(self, example: Example) -> Ids:
        """The tokens that an answer follows: what a model is given to generate from."""
        text, _ = self._opening(example)
        return self._start(example) + self._ids(text)

    def encode(self, example: Example, place: int = 0) -> Encoded:
        """Prompt, answer and end token, however many they are.

        Raises: UserError if there is no token to predict.
        """
        text, space = self._opening(example)
        given, whole = self._ids(text), self._ids(text + space + example.answer)
        # The last characters of the prompt may make one token with the answer's first ones. The
        # prompt is what generation is given, so it stays, and the answer begins with a new token.
        joined = whole[: len(given)] == given
        answer = whole[len(given) :] if joined else self._ids(space + example.answer)
        # The very first token of a text has nothing to be predicted from.
        start = max(1, len(self._start(example)) + len(given))
        ids = self._start(example) + given + answer
        if len(ids) <= start:
            raise UserError(f"row {example.row}: the tokenizer leaves nothing of the answer")
        if not example.continues:
            ids += (self.end,)
        return Encoded(ids, start, not example.continues, place)

    def encode_set(self, data: DataSet[Example], context: int) -> EncodedSet:
        """Every example of a set, none of more than `context` tokens.

        A plain text that is longer is cut into pieces of about equal length; an answer to a prompt
        is not, for the rest of it would be neither learnt nor tested.
        Raises: UserError with the rows of answers that do not fit.
        """
        rows: list[Encoded] = []
        cut: list[int] = []
        long: dict[int, int] = {}
        for place, example in enumerate(data):
            row = self.encode(example, place)
            if len(row.ids) <= context:
                rows.append(row)
            elif example.continues and not example.prompt:
                rows += self._pieces(row, context)
                cut.append(example.row)
            else:
                long[example.row] = len(row.ids)
        if long:
            raise self._too_long(data, long, context)
        texts = counted(len(cut), "text")
        note = f"'{data.name}': cut {texts} into pieces of at most {context} tokens"
        return EncodedSet(tuple(rows), (f"{note} ({some_rows(cut)})",) if cut else ())

    def text(self, ids: Ids) -> str:
        """Tokens as a text again, without special ones and space around it."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _too_long(
        self, data: DataSet[Example], lengths: Mapping[int, int], context: int
    ) -> UserError:
        """lengths: tokens of the rows that do not fit into the context, by the row's number."""
        way_out = "shorten or drop them, or choose a longer context"
        if self._most is not None and context >= self._most:
            way_out = "the model takes no more: shorten or drop them"
        return UserError(
            f"'{data.name}': {len(lengths)} of {counted(len(data), 'prompt')} with the answer "
            f"{'does' if len(lengths) == 1 else 'do'} not fit into {context} tokens "
            f"({some_rows(list(lengths))}; the longest has {max(lengths.values())}): {way_out}"
        )

    def _pieces(self, row: Encoded, context: int) -> list[Encoded]:
        body, room = row.ids[len(self.begin) :], context - len(self.begin)
        if room < 2:
            raise UserError(f"a context of {context} tokens is too short for any text")
        count = -(-len(body) // room)
        edges = [len(body) * number // count for number in range(count + 1)]
        return [
            Encoded(self.begin + body[low:high], row.start, False, row.example)
            for low, high in pairwise(edges)
        ]

    def _opening(self, example: Example) -> tuple[str, str]:
        """The text before the answer, and the space that belongs to the answer's first word."""
        if example.continues:
            return example.prompt, " " if example.prompt else ""
        if not self._chat:
            return PLAIN_TEMPLATE.format(prompt=example.prompt), " "
        before, _ = self._rendered(example.prompt)
        text = before.rstrip(" ")
        return text, before[len(text) :]

    def _rendered(self, prompt: str) -> tuple[str, str]:
        """What the chat template writes before and after the assistant's words."""
        turns = [("user", prompt), ("assistant", _ANSWER)]
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, date_string=_DATE)
        except Exception as error:  # templates are programs, and raise what they like
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"the tokenizer's chat template fails: {reason}") from error
        before, found, after = str(text).rpartition(_ANSWER)
        if not found:
            raise UserError("the tokenizer's chat template drops what the assistant says")
        return before, after

    def _start(self, example: Example) -> Ids:
        """The tokens before any text; a chat template writes them itself."""
        return () if self._chat and not example.continues else self.begin

    def _beginning(self) -> Ids:
        alone = self._ids("a")
        whole = tuple(self._tokenizer("a")["input_ids"])
        places = range(len(whole) - len(alone) + 1)
        return next((whole[:n] for n in places if whole[n : n + len(alone)] == alone), ())

    def _ending(self) -> int:
        """The first special token that the template writes after an answer; else the tokenizer's.

        That is what a chat model was trained to stop at, which need not be the end of a text.
        """
        if self._chat:
            special = {
                number
                for number, token in self._tokenizer.added_tokens_decoder.items()
                if token.special
            }
            _, after = self._rendered("a")
            if found := [token for token in self._ids(after) if token in special]:
                return found[0]
        end = self._tokenizer.eos_token_id
        if end is None:
            raise UserError("the tokenizer has no end-of-text token: set its eos_token")
        return int(end)

    def _ids(self, text: str) -> Ids:
        # verbose: what exceeds the context is refused or cut later, with the rows.
        return tuple(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def padded(rows: Sequence[Encoded], pad: int) -> Sequences:
    """Rows of tokens filled up at the end to the longest of them, (N, T)."""
    width = max(len(row.ids) for row in rows)
    tokens = torch.full((len(rows), width), pad, dtype=torch.int64)
    attention = torch.zeros_like(tokens)
    answer = torch.zeros(tokens.shape, dtype=torch.bool)
    for place, row in enumerate(rows):
        length = len(row.ids)
        tokens[place, :length] = torch.tensor(row.ids)
        attention[place, :length] = 1
        answer[place, row.start : length] = True
    return Sequences(tokens, attention, answer)


def padded_prompts(prompts: Sequence[Ids], pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention (N, T), filled up at the beginning: generation goes on at the end."""
    width = max(map(len, prompts))
    tokens = torch.tensor([(pad,) * (width - len(each)) + each for each in prompts])
    attention = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
    return tokens, attention
