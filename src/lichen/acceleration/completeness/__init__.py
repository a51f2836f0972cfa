"""Tell, while a model writes, that the code that was asked for is complete.

``rule`` has the stop rule and reads Markdown · ``python_*`` and ``brace_*`` follow code of one
language line by line · ``repetition`` notices a text that goes in circles.

The idea that code models write on long after their code is complete, and that stopping them costs
no quality, is CodeFast's (arXiv 2407.20042), which trains a classifier on hidden states. Here the
text alone decides: no training, any engine, and every decision can be replayed.
"""

from lichen.acceleration.completeness.rule import ALIASES, CompleteCode, Wanted, wanted_of

__all__ = ["ALIASES", "CompleteCode", "Wanted", "wanted_of"]
