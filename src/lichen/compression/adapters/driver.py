"""Runs inside a tool's own environment: ``python driver.py TOOL ORDER ANSWER``.

Stands alone: only the standard library and what that environment has. Never imported by lichen; see
``external_tool`` for what ORDER and ANSWER hold.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Order = dict[str, Any]


def llm_compressor(order: Order) -> None:
    """Compress with llm-compressor's one-shot entry point."""
    transformers = importlib.import_module("transformers")
    datasets = importlib.import_module("datasets")
    tool = importlib.import_module("llmcompressor")
    model = transformers.AutoModelForCausalLM.from_pretrained(order["model"], torch_dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(order["model"])
    tool.oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=datasets.Dataset.from_dict({"text": order["texts"]}),
        recipe=order["recipe"],
        max_seq_length=order["sequence"],
        num_calibration_samples=len(order["texts"]),
    )
    model.save_pretrained(order["out"], save_compressed=True)
    tokenizer.save_pretrained(order["out"])


def gptqmodel(order: Order) -> None:
    """Compress with GPTQModel."""
    tool = importlib.import_module("gptqmodel")
    config = tool.QuantizeConfig(
        bits=order["bits"],
        group_size=order["group_size"],
        desc_act=order["desc_act"],
        sym=order["sym"],
    )
    model = tool.GPTQModel.load(order["model"], config)
    model.quantize(order["texts"], batch_size=order["batch"])
    model.save(order["out"])


TOOLS: dict[str, Callable[[Order], None]] = {
    "llm_compressor": llm_compressor,
    "gptqmodel": gptqmodel,
}
PACKAGES = ("llmcompressor", "compressed-tensors", "gptqmodel", "torch", "transformers")
"""What could change a result; those that are installed are reported with their versions."""


def versions() -> dict[str, str]:
    """Return package -> installed version."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(tool: str, order_file: str, answer_file: str) -> int:
    """Carry out an order and write the answer; returns the exit code."""
    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    try:
        TOOLS[tool](order)
        answer: dict[str, Any] = {"versions": versions()}
    except ImportError as exc:
        answer = {"error": "missing", "message": str(exc)}
    except MemoryError as exc:
        answer = {"error": "memory", "message": str(exc) or "host memory"}
    except Exception as exc:  # noqa: BLE001 (whatever the tool raises becomes the answer)
        kind = "memory" if "out of memory" in str(exc).lower() else "failed"
        answer = {"error": kind, "message": f"{type(exc).__name__}: {exc}"}
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    # Python puts this script's folder first, where a module may be called like the tool's package.
    here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != here]
    sys.exit(main(*sys.argv[1:4]))
