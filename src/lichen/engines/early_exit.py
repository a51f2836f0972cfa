"""Leave out a model's later layers where a controller says that an earlier one is enough.

After each tested layer a controller sees the hidden state of the token that is being made and says
*go on*, *exit* (take this layer's prediction: the model's own final norm and head on it) or *stop*
(end the answer). On exit every later layer still gets keys and values, projected from the state at
which the model was left, so that later tokens can attend to this position: the state propagation of
CALM (Schuster et al., 2022, arXiv:2207.07061), which SEC (Sun et al., 2024, arXiv:2401.09964) uses
for code as well. Prompts are never cut short.

Nothing of a model's forward pass is written anew: its layers are wrapped, and what a left-out layer
would have kept is worked out from its own norm and projections. Whether that gives what the layer
itself keeps is tried on one token when the model is loaded; a model for which it does not is
refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError, EngineError

CONTROLLERS: Final = ("confidence", "linear")

_FEWEST: Final = 64
"""Tokens below which there is nothing to fit a classifier on."""

_CLOSE: Final = 1e-3
"""Largest difference of a propagated key or value from the layer's own, over the largest one."""


class Action(StrEnum):
    """What a controller decides after a layer."""

    GO_ON = "go on"
    EXIT = "exit"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExitOptions:
    """When to leave the model early.

    Args:
        controller: ``confidence`` exits where the most likely token has at least ``threshold``
            probability after a layer; ``linear`` asks a classifier of hidden states
            (``weights``).
        threshold: probability from which a layer is left, above 0; above 1 it never is, and what
            testing alone costs can be seen.
        stop_threshold: probability from which ``linear`` ends the answer; above 1 it never does.
        first: share of the layers that always run, 0 or more and below 1.
        every: test after every so many layers, >= 1.
        weights: file of the classifier (NumPy, 3 x hidden size); where it does not exist it is
            fitted when the model is loaded, and written.
        texts: files whose text it is fitted on.
        fit_tokens: how many tokens of them, >= 64.
    """

    controller: str = "confidence"
    threshold: float = 0.9
    stop_threshold: float = 2.0
    first: float = 0.75
    every: int = 1
    weights: str = ""
    texts: tuple[str, ...] = ()
    fit_tokens: int = 2048

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.controller not in CONTROLLERS:
            msg = f"controller must be one of {', '.join(CONTROLLERS)}, got {self.controller!r}"
            raise ValueError(msg)
        for name in ("threshold", "stop_threshold"):
            if not getattr(self, name) > 0:
                msg = f"{name} must be above 0, got {getattr(self, name):g}"
                raise ValueError(msg)
        if not 0 <= self.first < 1:
            msg = f"first must be 0 or more and below 1, got {self.first:g}"
            raise ValueError(msg)
        if self.every < 1:
            msg = f"every must be at least 1, got {self.every}"
            raise ValueError(msg)
        if self.fit_tokens < _FEWEST:
            msg = f"fit_tokens must be at least {_FEWEST}, got {self.fit_tokens}"
            raise ValueError(msg)
        if self.controller == "linear" and not self.weights:
            msg = "the controller 'linear' needs the option weights: the file of its classifier"
            raise ValueError(msg)

    def tested(self, layers: int) -> range:
        """Return which of so many layers are followed by a test; never the last."""
        return range(max(1, round(self.first * layers)) - 1, layers - 1, self.every)


class Controller(Protocol):
    """Decides after each tested layer, for one token."""

    def decide(self, hidden: Any, head: Callable[[Any], Any]) -> tuple[Action, Any]:
        """Return what to do, and the layer's logits where they were worked out (else None).

        Args:
            hidden: state after the layer, (1, 1, hidden size).
            head: the model's final norm and output matrix.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Confident:
    """Exits where the most likely token is likely enough."""

    torch: Any
    threshold: float

    def decide(self, hidden: Any, head: Callable[[Any], Any]) -> tuple[Action, Any]:
        """See ``Controller``."""
        logits = head(hidden)
        best = float(self.torch.softmax(logits.float()[0, -1], -1).max())
        return (Action.EXIT if best >= self.threshold else Action.GO_ON), logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """SEC's controller: one linear classifier of hidden states, the same for all layers.

    Args:
        torch: the module.
        weights: (3, hidden size), rows for stop, exit, go on; a state is scaled to unit RMS first.
        threshold, stop_threshold: probabilities from which it exits and stops.
    """

    torch: Any
    weights: Any
    threshold: float
    stop_threshold: float

    def decide(self, hidden: Any, head: Callable[[Any], Any]) -> tuple[Action, Any]:
        """See ``Controller``; the head is asked only by the model itself, after an exit."""
        del head
        stop, leave, go_on = self.torch.softmax(self.weights @ scaled(hidden[0, -1]), -1).tolist()
        if stop >= self.stop_threshold and stop > max(leave, go_on):
            return Action.STOP, None
        if leave >= self.threshold and leave > max(stop, go_on):
            return Action.EXIT, None
        return Action.GO_ON, None


def scaled(hidden: Any) -> Any:
    """Return states of unit root mean square, in 32 bits: what the classifier is fitted on."""
    wide = hidden.float()
    return wide / wide.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the controller did for one answer.

    Args:
        layers: of the model.
        tokens: decoded tokens that it saw.
        exits: tokens after which the model was left early.
        left_out: layers that did not run, over all tokens.
        stopped: whether it ended the answer.
    """

    layers: int
    tokens: int = 0
    exits: int = 0
    left_out: int = 0
    stopped: bool = False

    def __str__(self) -> str:
        """Say it in a clause."""
        all_layers = self.tokens * self.layers
        share = self.left_out / all_layers if all_layers else 0.0
        said = f"{self.exits} of {self.tokens} decoded tokens, {share:.1%} of the layers"
        return said + ("; ended the answer" if self.stopped else "")


@dataclass(slots=True)
class Exits:
    """A model whose layers can be left out; ``arm`` before each token that may leave early."""

    torch: Any
    model: Any
    options: EarlyExitOptions
    tally: Tally = field(init=False)
    _layers: list[Any] = field(init=False)
    _controller: Controller = field(init=False)
    _armed: bool = field(init=False, default=False)
    _left: bool = field(init=False, default=False)
    _logits: Any = field(init=False, default=None)
    _plain: bool = field(init=False, default=True)
    """Whether layers return a state (transformers 5) or a tuple that holds one (4)."""

    def __post_init__(self) -> None:
        """Wrap the model's layers.

        Raises:
            EngineError: it has no layers of the usual kind, or what they keep cannot be told.
            ConfigError: the classifier's weights cannot be read or are another model's.
        """
        self._layers = decoder_layers(self.model)
        self._controller = self._made()
        self.tally = Tally(layers=len(self._layers))
        _self_test(self.torch, self.model, self._layers)
        tested = self.options.tested(len(self._layers))
        for i, layer in enumerate(self._layers):
            layer.forward = self._wrapped(i, layer, layer.forward, tested=i in tested)
        inner_head = self.model.lm_head.forward

        def head(*args: Any, **kwargs: Any) -> Any:
            known, self._logits = self._logits, None
            return inner_head(*args, **kwargs) if known is None else known

        self.model.lm_head.forward = head

    def begin(self) -> None:
        """Start the tally of an answer."""
        self.tally = Tally(layers=len(self._layers))
        self.disarm()

    def arm(self) -> None:
        """Let the controller decide for the next forward pass, of one token."""
        self._armed, self._left, self._logits = True, False, None
        self.tally.tokens += 1

    def disarm(self) -> None:
        """Let all layers run (a prompt)."""
        self._armed, self._left, self._logits = False, False, None

    def _made(self) -> Controller:
        o = self.options
        if o.controller == "linear":
            found = _read(Path(o.weights))
            if found.shape != (3, self.model.config.hidden_size):
                size = self.model.config.hidden_size
                raise ConfigError(
                    f"{o.weights} holds a classifier of shape {found.shape}, but the model needs "
                    f"(3, {size}): delete the file, and one is fitted"
                )
            return Linear(
                torch=self.torch,
                weights=self.torch.tensor(found, device=self.model.device),
                threshold=o.threshold,
                stop_threshold=o.stop_threshold,
            )
        return Confident(torch=self.torch, threshold=o.threshold)

    def _head(self, hidden: Any) -> Any:
        return self.model.lm_head(self.model.model.norm(hidden))

    def _wrapped(
        self, index: int, layer: Any, forward: Callable[..., Any], *, tested: bool
    ) -> Callable[..., Any]:
        def run(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if self._left:
                keep(layer, index, hidden_states, kwargs)
                self.tally.left_out += 1
                return hidden_states if self._plain else (hidden_states,)
            out = forward(hidden_states, *args, **kwargs)
            if self._armed and tested:
                self._decide(out[0] if isinstance(out, tuple) else out)
                self._plain = not isinstance(out, tuple)
            return out

        return run

    def _decide(self, hidden: Any) -> None:
        action, logits = self._controller.decide(hidden, self._head)
        if action is Action.GO_ON:
            return
        self._left = True
        self._logits = logits
        self.tally.exits += action is Action.EXIT
        self.tally.stopped |= action is Action.STOP


def decoder_layers(model: Any) -> list[Any]:
    """Return the decoder's layers.

    Raises:
        EngineError: it is not built of them as Llama and its like are.
    """
    layers = list(getattr(getattr(model, "model", None), "layers", None) or ())
    parts = ("input_layernorm", "self_attn")
    usual = hasattr(model, "lm_head") and all(
        all(hasattr(layer, p) for p in parts)
        and all(hasattr(layer.self_attn, p) for p in ("k_proj", "v_proj", "head_dim"))
        for layer in layers
    )
    if not layers or not usual or not hasattr(model.model, "norm"):
        raise EngineError(f"early exit cannot leave layers out of {type(model).__name__}")
    return layers


def keep(layer: Any, index: int, hidden: Any, kwargs: Mapping[str, Any]) -> None:
    """Put the keys and values into the cache that ``layer`` would keep for ``hidden``.

    Args:
        layer: a decoder layer with its own norm and projections.
        index: its place, from 0.
        hidden: the state that it would be given, (1, tokens, hidden size).
        kwargs: what its forward pass would be given (the cache, rotary embeddings).
    """
    attention = layer.self_attn
    state = layer.input_layernorm(hidden)
    shape = (*state.shape[:-1], -1, attention.head_dim)
    keys = attention.k_proj(state).view(shape)
    if hasattr(attention, "k_norm"):
        keys = attention.k_norm(keys)
    keys = keys.transpose(1, 2)
    values = attention.v_proj(state).view(shape).transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    keys = rotate(keys, keys, *kwargs["position_embeddings"])[1]
    cache = kwargs.get("past_key_values", kwargs.get("past_key_value"))
    if cache is not None:
        cache.update(keys, values, index)


def _self_test(torch: Any, model: Any, layers: list[Any]) -> None:
    """Compare ``keep`` with what each layer keeps itself, for one token.

    Raises:
        EngineError: they differ, or the layers cannot be called as expected.
    """
    seen: list[tuple[Any, Mapping[str, Any]]] = []
    taps = [
        layer.register_forward_pre_hook(
            lambda _module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
        )
        for layer in layers
    ]
    try:
        with torch.inference_mode():
            ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
            own = model(input_ids=ids, use_cache=True).past_key_values
            mine = type(own)()
            for i, (layer, (args, kwargs)) in enumerate(zip(layers, seen, strict=True)):
                given = dict(kwargs)
                name = "past_key_values" if "past_key_values" in given else "past_key_value"
                given[name] = mine
                hidden = args[0] if args else given["hidden_states"]
                keep(layer, i, hidden, given)
            same = all(
                _near(a, b)
                for i in range(len(layers))
                for a, b in zip(kept(own, i), kept(mine, i), strict=True)
            )
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as exc:
        raise EngineError(
            f"early exit cannot tell what the layers of {type(model).__name__} keep: {exc!r}"
        ) from exc
    finally:
        for tap in taps:
            tap.remove()
    if not same:
        raise EngineError(
            f"early exit cannot tell what the layers of {type(model).__name__} keep: their keys "
            "and values are not those of their projections"
        )


def kept(cache: Any, index: int) -> tuple[Any, Any]:
    """Return a layer's keys and values from a cache of transformers 5 or 4."""
    if hasattr(cache, "layers"):
        return cache.layers[index].keys, cache.layers[index].values
    return cache.key_cache[index], cache.value_cache[index]


def _near(a: Any, b: Any) -> bool:
    largest = float(a.abs().max())
    return a.shape == b.shape and float((a - b).abs().max()) <= _CLOSE * max(largest, 1e-6)


def _read(path: Path) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (OSError, ValueError, EOFError) as exc:
        raise ConfigError(f"cannot read the classifier {path}: {exc}") from exc
