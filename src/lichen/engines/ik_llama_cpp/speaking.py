"""Choose an answer's tokens and say them: sampling, half characters, stop strings."""

from __future__ import annotations

import codecs
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lichen.core.generation import Finish, Request, TokenLogprob
from lichen.engines.ik_llama_cpp.batching import Logits
from lichen.engines.transcript import Transcript, may_become


class Vocabulary(Protocol):
    """What is asked of the model about its tokens."""

    def piece(self, token: int) -> bytes:
        """Return a token's bytes."""

    def ends(self, token: int) -> bool:
        """Whether it ends an answer."""


class Speaking:
    """One answer while it is generated.

    Args:
        request: what was asked.
        transcript: takes what is said.
        vocabulary: of the model.
    """

    def __init__(self, request: Request, transcript: Transcript, vocabulary: Vocabulary) -> None:
        self._request: Final = request
        self._transcript = transcript
        self._vocabulary = vocabulary
        self._random = np.random.default_rng(request.seed)
        # A character's bytes may come in several tokens.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._said = 0
        self._met = False
        self.finish = Finish.LENGTH

    def choose(self, logits: Logits) -> tuple[int, bool]:
        """Return the next token, and whether the answer ends with it."""
        token = self._next(logits)
        self._transcript.mark_first_token()
        if self._vocabulary.ends(token):
            self.finish = Finish.STOP
            return token, True
        piece = self._vocabulary.piece(token)
        pairs = (self._logprob(token, piece, logits),) if self._request.logprobs else ()
        ended = self._say(self._decoder.decode(piece), pairs)
        return token, ended

    def flush(self) -> None:
        """Say what was held back, unless a stop string or a rule has ended the answer."""
        if not self._met:
            self._text += self._decoder.decode(b"", final=True)
            self._transcript.add(self._text[self._said :])

    def _next(self, logits: Logits) -> int:
        """Greedy at temperature 0, else temperature, then top-p."""
        if self._request.temperature == 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self._request.temperature
        chances = np.exp(scaled - scaled.max())
        order = np.argsort(-chances, kind="stable")
        chances = chances[order] / chances.sum()
        before = np.cumsum(chances) - chances
        chances[before >= self._request.top_p] = 0.0
        chances[0] = max(float(chances[0]), 1e-9)  # top_p = 0 keeps the best
        return int(order[self._random.choice(len(order), p=chances / chances.sum())])

    def _logprob(self, token: int, piece: bytes, logits: Logits) -> TokenLogprob:
        logs = log_probabilities(logits)
        count = min(self._request.logprobs, len(logs))
        best = np.argpartition(-logs, count - 1)[:count]
        best = best[np.argsort(-logs[best], kind="stable")]
        return TokenLogprob(
            text=piece.decode(errors="replace"),
            logprob=min(float(logs[token]), 0.0),
            top=tuple(
                (self._vocabulary.piece(int(t)).decode(errors="replace"), min(float(logs[t]), 0.0))
                for t in best
            ),
        )

    def _say(self, more: str, pairs: tuple[TokenLogprob, ...]) -> bool:
        """Add text; what may yet become a stop string is held back. Returns whether it ends."""
        self._text += more
        stops = self._request.stop_strings
        upto = len(self._text)
        # Only what has not been said can begin a stop string.
        at = [i for s in stops if (i := self._text.find(s, self._said)) >= 0]
        if at:
            self._met, self.finish, upto = True, Finish.STOP, min(at)
        elif stops:
            upto -= may_become(self._text, stops)
        piece, self._said = self._text[self._said : upto], max(self._said, upto)
        return self._transcript.add(piece, pairs) or self._met


def log_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the logarithms, in nats, of what the softmax of ``logits`` (vocabulary,) gives."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
