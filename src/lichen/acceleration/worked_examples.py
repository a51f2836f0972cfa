"""A worked example that shows a chat model what an answer looks like, so that it need not be told.

A conversation that begins with a solved question makes a model answer the next one in the same
form (in-context learning: Brown et al., 2020, arXiv:2005.14165). The turns are the same for every
question, so an engine that keeps prompts (``prefix_cache``) reads them once per slot.

The function is lichen's own and belongs to no data set. One is enough: with a second the 1.5B model
solved no more of 41 HumanEval problems (28 and 28), and each slot has to read it.
"""

from __future__ import annotations

from typing import Final

from lichen.acceleration.completeness import ALIASES
from lichen.core.generation import Message, Role

_SOLVED: Final = {
    "python": '''\
def second_largest(numbers: list) -> int:
    """Return the second largest distinct number, or None if there is none.
    >>> second_largest([3, 1, 3, 2])
    2
    """
    distinct = sorted(set(numbers))
    return distinct[-2] if len(distinct) > 1 else None
''',
    "javascript": """\
// Return the second largest distinct number, or null if there is none.
// secondLargest([3, 1, 3, 2]) is 2
function secondLargest(numbers) {
  const distinct = [...new Set(numbers)].sort((a, b) => a - b);
  return distinct.length > 1 ? distinct[distinct.length - 2] : null;
}
""",
    "typescript": """\
// Return the second largest distinct number, or null if there is none.
// secondLargest([3, 1, 3, 2]) is 2
function secondLargest(numbers: number[]): number | null {
  const distinct = Array.from(new Set(numbers)).sort((a, b) => a - b);
  return distinct.length > 1 ? distinct[distinct.length - 2] : null;
}
""",
    "java": """\
// Return the second largest distinct number, or null if there is none.
// secondLargest(List.of(3, 1, 3, 2)) is 2
static Integer secondLargest(List<Integer> numbers) {
    TreeSet<Integer> distinct = new TreeSet<>(numbers);
    return distinct.size() > 1 ? distinct.lower(distinct.last()) : null;
}
""",
    "go": """\
// SecondLargest returns the second largest distinct number; false if there is none.
// SecondLargest([]int{3, 1, 3, 2}) is 2, true
func SecondLargest(numbers []int) (int, bool) {
	distinct := slices.Compact(slices.Sorted(slices.Values(numbers)))
	if len(distinct) < 2 {
		return 0, false
	}
	return distinct[len(distinct)-2], true
}
""",
    "rust": """\
/// Returns the second largest distinct number, or None if there is none.
/// second_largest(&[3, 1, 3, 2]) is Some(2)
fn second_largest(numbers: &[i64]) -> Option<i64> {
    let mut distinct = numbers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.iter().rev().nth(1).copied()
}
""",
    "c": """\
// Store the second largest distinct number in *second; return false if there is none.
// second_largest((int[]){3, 1, 3, 2}, 4, &n) stores 2
bool second_largest(const int *numbers, size_t count, int *second) {
    if (count == 0) return false;
    int largest = numbers[0];
    bool found = false;
    for (size_t i = 1; i < count; i++) {
        if (numbers[i] > largest) {
            *second = largest;
            largest = numbers[i];
            found = true;
        } else if (numbers[i] < largest && (!found || numbers[i] > *second)) {
            *second = numbers[i];
            found = true;
        }
    }
    return found;
}
""",
    "cpp": """\
// Return the second largest distinct number, or nothing if there is none.
// second_largest({3, 1, 3, 2}) is 2
std::optional<int> second_largest(const std::vector<int>& numbers) {
    std::set<int> distinct(numbers.begin(), numbers.end());
    if (distinct.size() < 2) return std::nullopt;
    return *std::next(distinct.rbegin());
}
""",
}
"""Language -> a whole function under a comment or with a docstring that shows an example."""

_CALLED: Final = {"javascript": "JavaScript", "typescript": "TypeScript", "cpp": "C++"}


def shown(language: str) -> tuple[Message, ...]:
    """Return the turns to begin with, the last one asking for the function that is to be written.

    The answer to it must be begun with a fence and the given code, which the question leaves out.
    Empty where there is no example in the language.
    """
    name = ALIASES.get(language.lower(), language.lower())
    code = _SOLVED.get(name)
    if code is None:
        return ()
    called = _CALLED.get(name, name.capitalize())
    question = Message(
        role=Role.USER, content=f"Implement the next {called} function completely and correctly."
    )
    answer = Message(role=Role.ASSISTANT, content=f"```{language.lower()}\n{code}```")
    return (question, answer, question)
