"""Fit the classifier that says where a model may be left early, on text that the model reads.

Sun et al., 2024 (SEC, arXiv:2401.09964): after each tested layer a token's state belongs to one of
three classes. *Stop*: no tested layer, the last one included, predicts the text's next token, so
there is no use in going on. *Exit*: this layer or an earlier one does. *Go on*: a later one does.
One bias-free linear classifier serves all layers; later layers weigh more (their number, over the
sum). Unlike in SEC no new heads are trained: a layer's prediction is the model's own final norm
and head on its state, so that a model file stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError
from lichen.engines.early_exit import EarlyExitOptions, decoder_layers, scaled

STOP, EXIT, GO_ON = range(3)

_WINDOW: Final = 256
"""Tokens that are read together, as in SEC."""

_ROUNDS: Final = 60
"""Iterations of L-BFGS; the problem is convex."""

_DECAY: Final = 1e-4
"""Of the squared weights: keeps classes that are told apart perfectly from growing without end."""


def fit(torch: Any, model: Any, tokenizer: Any, options: EarlyExitOptions) -> None:
    """Fit a classifier and write it to ``options.weights``.

    Raises:
        ConfigError: the texts cannot be read, or hold too little; the file cannot be written.
        EngineError: the model has no layers of the usual kind.
    """
    layers = decoder_layers(model)
    tested = options.tested(len(layers))
    states: list[Any] = []
    labels: list[Any] = []
    with torch.inference_mode():
        for ids in _windows(tokenizer, options):
            window = torch.tensor([ids], device=model.device)
            after = _states(model, [layers[i] for i in tested], window)
            right = _right(torch, model, after, window)
            states.append(torch.stack([scaled(h[0, :-1]) for h in after[:-1]]))
            labels.append(classes(torch, right))
    if not states:
        raise ConfigError(
            f"the {len(options.texts)} texts for the controller 'linear' hold too little to fit on"
        )
    weights = solved(
        torch,
        torch.cat(states, 1).clone(),
        torch.cat(labels, 1).clone(),
        torch.tensor([i + 1.0 for i in tested], device=model.device),
    )
    _write(Path(options.weights), weights.cpu().numpy().astype(np.float32))


def classes(torch: Any, right: Any) -> Any:
    """Return the class of each state.

    Args:
        torch: the module.
        right: (tested layers and the last, tokens), whether a layer predicts the next token.

    Returns:
        (tested layers, tokens) of ``STOP``, ``EXIT``, ``GO_ON``.
    """
    by_now = right.long().cummax(0).values.bool()[:-1]
    found = torch.full(by_now.shape, GO_ON, device=right.device)
    found[by_now] = EXIT
    found[:, ~right.any(0)] = STOP
    return found


def solved(torch: Any, states: Any, labels: Any, numbers: Any) -> Any:
    """Return the classifier of least weighted cross-entropy, (3, size).

    Args:
        torch: the module.
        states: (layers, tokens, size), scaled.
        labels: (layers, tokens).
        numbers: of the layers, from 1: what they weigh.
    """
    share = numbers / numbers.sum()
    weights = torch.zeros((3, states.shape[-1]), device=states.device, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        solver.zero_grad()
        scores = states @ weights.T
        each = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), reduction="none"
        )
        wrong = (each.view(labels.shape).mean(1) * share).sum() + _DECAY * weights.pow(2).sum()
        wrong.backward()
        return wrong

    solver.step(loss)
    return weights.detach()


def _windows(tokenizer: Any, options: EarlyExitOptions) -> Iterator[Sequence[int]]:
    left = options.fit_tokens
    for path in options.texts:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise ConfigError(f"cannot read {path}: {exc.strerror or exc}") from exc
        ids = tokenizer(text[: 8 * _WINDOW], add_special_tokens=False)["input_ids"]
        ids = ids[: min(_WINDOW, left)]
        if len(ids) > 1:
            yield ids
            left -= len(ids)
        if left <= 1:
            return


def _states(model: Any, layers: Sequence[Any], window: Any) -> list[Any]:
    """Return the states after ``layers``, and after the model's last one before its norm."""
    found: list[Any] = []

    def tap(*heard: Any) -> None:
        out = heard[-1]
        found.append(out[0] if isinstance(out, tuple) else out)

    last = decoder_layers(model)[-1]
    hooks = [layer.register_forward_hook(tap) for layer in (*layers, last)]
    try:
        model.model(input_ids=window, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _right(torch: Any, model: Any, states: Sequence[Any], window: Any) -> Any:
    head: Callable[[Any], Any] = model.lm_head
    said = [head(model.model.norm(h[:, :-1]))[0].argmax(-1) for h in states]
    return torch.stack(said) == window[0, 1:]


def _write(path: Path, weights: npt.NDArray[np.float32]) -> None:
    part = path.with_name(f"{path.name}.part.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(part, weights)
        part.replace(path)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc
