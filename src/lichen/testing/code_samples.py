"""A short program in each of eight languages, with what tokenizers stumble over.

Tabs, runs of blanks, Windows line ends, operators, escapes, digits, letters beyond ASCII, emoji.
"""

from __future__ import annotations

from typing import Final

CODE_SAMPLES: Final = {
    "python": 'def mean(xs: list[float]) -> float:\n    """Ø, mathematically x̄."""\n'
    "    return sum(xs) / len(xs) if xs else float('nan')  # noqa: 0x1F\n\n\n"
    "class Größe:\n\n        pass\n",
    "javascript": "const add = (a, b) => a + b;\r\nlet s = `total: ${add(1, 2e-3)} 🎉`;\r\n"
    "if (s?.length !== 0 && !(s == null)) { console.log(/\\d+\\s*/gi.test(s)); }\r\n",
    "typescript": "export interface Tree<T extends object = {}> {\n\treadonly left?: Tree<T>;\n"
    '\tvalue: T | null; // "naïve"\n}\n',
    "java": "public final class Main {\n    public static void main(String... args) {\n"
    '        System.out.println("caf\\u00e9 " + (args.length >>> 1));\n    }\n}\n',
    "go": "package main\n\nfunc fib(n int) (a, b int) {\n\tfor a, b = 0, 1; n > 0; n-- {\n"
    "\t\ta, b = b, a+b\n\t}\n\treturn // 返回\n}\n",
    "rust": "fn largest<'a, T: PartialOrd>(xs: &'a [T]) -> Option<&'a T> {\n"
    "    xs.iter().fold(None, |m, x| match m { Some(y) if y >= x => m, _ => Some(x) })\n}\n",
    "c": "#include <stdio.h>\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\n\n"
    'int main(void)\n{\n\tunsigned long long x = 0xDEADBEEFULL;\n\tprintf("%llu\\n", x);\n}\n',
    "cpp": "template <typename... Ts>\nauto sum(Ts&&... ts) -> decltype((ts + ...)) {\n"
    "  return (std::forward<Ts>(ts) + ...);   // C++17  \n}\n",
}
"""Language -> program."""
