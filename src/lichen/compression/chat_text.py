"""English as people and code models write it to each other; its tokens are never trimmed.

A corpus of source code hardly has these words, and an answer that cannot say them fluently gets
longer. Written for lichen.
"""

from __future__ import annotations

from typing import Final

CHAT_TEXT: Final = """
You are a helpful assistant. You are an expert programmer who writes correct, efficient and well
documented code. Always answer in Markdown and put code into fenced blocks.

Write a Python function that takes a list of integers and returns the sum of the even ones.

Complete the following function. Return only the code, without any explanation.

Fix the bug in this program and explain what was wrong:
```python
```

Could you please refactor this class, add type hints and docstrings, and write unit tests with
pytest? Thanks!

Why do I get this error message? TypeError: unsupported operand type(s) for +: 'int' and 'str'

How can I make this query faster? What is its time complexity, and how much memory does it use?

Translate this code from JavaScript to Rust. Use idiomatic TypeScript, Java, Go, C, C++ or C#
where I ask for it.

Sure! Here is a possible solution:

```python

Certainly! Below is an implementation that handles the edge cases you mentioned.

Here's the corrected version of your code:

```javascript
```

### Explanation

1. **Initialize** an empty dictionary to store the results.
2. **Iterate** over each element of the list.
3. **Check** whether the current value satisfies the condition.
4. **Return** the result.

### Example usage

```python
print(solution([1, 2, 3]))  # Output: 6
```

This function uses a loop to iterate through the string, checks if each character is a vowel, and
increments the counter accordingly. Finally, it returns the count.

The function should raise a ValueError if the input is empty or contains negative numbers.

Note that this approach assumes the list is already sorted; otherwise, you need to sort it first.
The time complexity is O(n log n) and the space complexity is O(n).

I'm sorry, but I don't have enough information to answer that. Could you provide more details
about the expected output?

If you have any questions or need further assistance, feel free to ask! Let me know if this helps.
Happy coding!

However, there are several ways to improve it. For instance, you can replace the nested loops with
a set comprehension, which is both faster and easier to read.

Yes. No. True. False. Correct. Incorrect. Therefore, the answer is 42.

```java
``` ```go
``` ```rust
``` ```cpp
``` ```typescript
``` ```bash
``` ```sql
``` ```json
``` ```html
``` ```yaml
```

Check whether a string is a palindrome or an anagram, count its vowels and consonants, reverse the
words of a sentence, capitalize each word. Compute the factorial, the greatest common divisor, the
Fibonacci sequence, prime numbers, the median, the standard deviation, the area of a triangle, a
circle, a rectangle. Convert Celsius to Fahrenheit, decimal to binary, octal or hexadecimal, Roman
numerals to integers. Sort, merge, search, flatten, rotate, transpose, deduplicate. FizzBuzz, Tower
of Hanoi, tic-tac-toe, sudoku, knapsack, linked list, stack, queue, heap, trie, graph, matrix,
binary search tree, breadth-first, depth-first, dynamic programming, recursion, memoization.

zero one two three four five six seven eight nine ten eleven twelve twenty hundred thousand million
first second third fourth fifth sixth seventh eighth ninth tenth
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
January February March April May June July August September October November December
red orange yellow green blue purple pink brown black white gray
apple banana cherry orange grape lemon; cat dog bird fish horse; Alice, Bob, Charlie, John, Jane
Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune; north south east west; foo bar baz qux

 palindrome anagram vowel vowels consonant consonants factorial Fibonacci fibonacci prime median
 zero One Two Three four five six seven eight nine Ten apple banana cherry orange lemon
"""
"""Questions, instructions and answers."""
