#!/usr/bin/env python3
"""Measures the structure of Rust source trees and prints a Markdown table, one column per tree:

    scripts/structure.py [SRC ...]        # default: src

Rows: functions (length, arguments, nesting), files, type names, modules per folder, import circles, and word patterns
in comments. Only production code counts: files and folders named `tests`, and items under `#[cfg(test)]`, are left out.
For a single tree the table is followed by the names that it only counts.

How the figures are taken:
- A function is a `fn` with a body. Its lines run from `fn` to the closing brace. Arguments do not include `self`.
- Brace depth counts the body of a function as 1, each block inside it as one more.
- Type names are those of structs, enums, unions, traits and aliases outside functions and impls. A name has one word if
  it has one capital letter. A shared name stands for at least two types.
- A module is a file; the modules of a folder are its files without `mod.rs`, and its sub-folders.
- File A imports file B if a path in A leads to an item of B. Re-exports (`use`) are followed; visibilities do not
  count.
- A circle is a strongly connected component of at least two files. Between folders, the sub-folders and files of one
  folder are compared, each sub-folder with all that is in it, without the folder's own `mod.rs`.
- Word patterns are counted per 1,000 words of comment."""
import re
import signal
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path

TOKEN = re.compile(r"""
    (?P<space>\s+) | (?P<comment>//[^\n]*) | (?P<block>/\*)
  | (?P<raw>(?:b|c)?r(?P<hashes>\#*)"(?s:.*?)"(?P=hashes)) | (?P<string>(?:b|c)?"(?s:\\.|[^"\\])*")
  | (?P<char>b?'(?:\\(?:u\{[0-9a-fA-F_]+\}|x[0-9a-fA-F]{2}|.)|[^'\\\n])') | (?P<lifetime>'[A-Za-z_]\w*)
  | (?P<name>(?:r\#)?[^\W\d]\w*) | (?P<number>\d\w*(?:\.\d\w*)?) | (?P<sign>::|->|=>|.)
""", re.X)
OPEN, CLOSE = "([{", ")]}"
TYPE_WORDS = ("struct", "enum", "union", "trait", "type")
ITEM_WORDS = TYPE_WORDS + ("fn", "const", "static")
TEST_PARTS = ("tests", "tests.rs", "test.rs", "benches", "testdata", "examples")
FACES = ("mod.rs", "lib.rs", "main.rs")
MAX_WIDTH = 120   # columns of a comment
LONG = 60         # lines of a function
CROWDED = 20      # modules of a folder
PATTERNS = [
    ("nobody, somebody, whoever, everybody", r"\b(?:nobody|somebody|whoever|everybody)\b"),
    ("told, said, heard, tells", r"\b(?:told|said|heard|tells)\b"),
    ('"what is", "what was", "what may" as a noun', r"\bwhat (?:is|was|may)\b"),
    ("sentences that begin with Who or Whoever", r"(?:^|[.:;!?]\s+)Who(?:ever)?\b"),
    ('"so many", "as many as"', r"\b(?:so many|as many as|as much as)\b"),
    ("anew, for ever, in vain", r"\b(?:anew|for ever|in vain)\b"),
]


class Token:
    """One token of a file: its kind, text and line."""

    def __init__(self, kind, text, line):
        self.kind, self.text, self.line = kind, text, line


def tokenize(text):
    """All tokens but spaces, comments included."""
    at, line = 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        kind, end = match.lastgroup, match.end()
        if match["block"]:
            kind, end = "comment", end_of_block(text, at)
        elif match["raw"]:
            kind = "string"
        if kind != "space":
            yield Token(kind, text[at:end], line)
        line += text.count("\n", at, end)
        at = end


def end_of_block(text, at):
    """The end of the block comment that begins at `at`; block comments nest."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def matching(tokens, at):
    """The position of the bracket that closes the one at `at`."""
    depth = 0
    for position in range(at, len(tokens)):
        text = tokens[position].text if tokens[position].kind == "sign" else ""
        depth += (text in OPEN and text != "") - (text in CLOSE and text != "")
        if depth == 0:
            return position
    return len(tokens) - 1


def is_test_attribute(tokens, at):
    """Whether an attribute `#[cfg(test)]` or `#[cfg(all(test, ..))]` begins at `at`."""
    words = [token.text for token in tokens[at:at + 6]]
    return words[:4] == ["#", "[", "cfg", "("] and (words[4:5] == ["test"] or words[4:6] == ["all", "("]
                                                    and tokens[at + 6].text == "test")


def end_of_item(tokens, at):
    """The position after the item that begins at `at`, its attributes included."""
    while at < len(tokens):
        text = tokens[at].text if tokens[at].kind == "sign" else ""
        if text == "#" and tokens[at + 1].text in ("[", "!"):
            at += 1
        elif text == ";" or text == ",":
            return at + 1
        elif text in (")", "}"):
            return at
        elif text == "{":
            return matching(tokens, at) + 1
        elif text in ("(", "["):
            at = matching(tokens, at)
        at += 1
    return at


def without_tests(tokens):
    """The tokens outside `#[cfg(test)]` items, the lines of such items, and the modules that they declare."""
    code = [token for token in tokens if token.kind != "comment"]
    kept, lines, modules = [], set(), set()
    at = 0
    while at < len(code):
        if code[at].text == "#" and is_test_attribute(code, at):
            end = end_of_item(code, at)
            lines.update(range(code[at].line, code[min(end, len(code)) - 1].line + 1))
            if code[end - 1].text == ";" and code[end - 3].text == "mod":
                modules.add(code[end - 2].text)
            at = end
        else:
            kept.append(code[at])
            at += 1
    return kept, lines, modules


class File:
    """One file: its production tokens, comments, types, functions and imports."""

    def __init__(self, path):
        self.path = path
        text = path.read_text(encoding="utf-8")
        tokens = list(tokenize(text))
        self.code, test_lines, self.test_modules = without_tests(tokens)
        lines = text.split("\n")
        self.lines = sum(1 for number, line in enumerate(lines, 1) if number not in test_lines) - 1
        self.wide = sum(len(line) > MAX_WIDTH and "//" in line for number, line in enumerate(lines, 1)
                        if number not in test_lines)
        self.comments = [token for token in tokens if token.kind == "comment" and token.line not in test_lines]
        self.doc_lines = sum(c.text.count("\n") + 1 for c in self.comments if re.match(r"//[/!]|/\*[*!]", c.text))
        self.code_lines = len({token.line for token in self.code})
        self.types, self.items, self.functions = [], {}, []
        self.uses, self.paths = [], []
        self.read()

    def read(self):
        """Walks over the tokens once: blocks, items, `use` and paths."""
        blocks, at = [], 0      # a block is "mod NAME", "fn", "other"
        scope = ()
        code = self.code
        pending = "other"
        while at < len(code):
            token = code[at]
            following = code[at + 1] if at + 1 < len(code) else token
            if token.kind == "sign":
                if token.text == "{":
                    blocks.append(pending)
                    scope += (pending[4:],) if pending.startswith("mod ") else ()
                    pending = "other"
                elif token.text == "}" and blocks:
                    scope = scope[:-1] if blocks.pop().startswith("mod ") else scope
                elif token.text == ";":
                    pending = "other"
                at += 1
            elif token.text == "use" and token.kind == "name" and following.text != "<" and self.begins_item(at):
                at = self.read_use(at, scope)
            elif token.kind == "name" and token.text in ITEM_WORDS + ("mod",) and following.kind == "name":
                outside = all(block.startswith("mod ") for block in blocks)
                if token.text == "mod":
                    pending = f"mod {following.text}" if code[at + 2].text == "{" else "other"
                elif token.text == "fn":
                    pending = "other"
                    self.read_function(at)
                if outside and token.text != "mod":
                    self.items[scope + (following.text,)] = token.text
                    if token.text in TYPE_WORDS:
                        self.types.append(following.text)
                at += 2 if following.text not in ITEM_WORDS else 1
            elif token.kind == "name":
                at = self.read_path(at, scope)
            else:
                at += 1

    def begins_item(self, at):
        return at == 0 or self.code[at - 1].text in (";", "{", "}", "]", ")", "pub")

    def read_function(self, at):
        """Length, arguments and nesting of the function whose `fn` is at `at`, if it has a body."""
        code = self.code
        position = at + 2
        if code[position].text == "<":
            position = self.end_of_generics(position)
        end = matching(code, position)
        arguments = self.count_arguments(position, end)
        while end < len(code) and code[end].text not in ("{", ";"):
            end = matching(code, end) if code[end].text in ("(", "[") else end
            end += 1
        if end >= len(code) or code[end].text == ";":
            return
        last = matching(code, end)
        depth = deepest = 0
        for token in code[end:last]:
            if token.kind == "sign" and token.text in "{}":
                depth += 1 if token.text == "{" else -1
                deepest = max(deepest, depth)
        place = f"{code[at + 1].text} ({self.path}:{code[at].line})"
        self.functions.append((code[last].line - code[at].line + 1, arguments, deepest, place))

    def end_of_generics(self, at):
        depth = 0
        while True:
            depth += (self.code[at].text == "<") - (self.code[at].text == ">")
            at += 1
            if depth == 0:
                return at

    def count_arguments(self, at, end):
        """The arguments between the parentheses at `at` and `end`, without `self`."""
        found, depth, inside, first = 0, 0, False, []
        for token in self.code[at + 1:end]:
            if token.kind == "sign":
                depth += (token.text in "([{<") - (token.text in ")]}>")
            if depth == 0 and token.text == ",":
                found += inside
                inside = False
                first = first or ["done"]
            else:
                inside = True
                if "done" not in first:
                    first.append(token.text)
        found += inside
        return found - ("self" in first)

    def read_use(self, at, scope):
        """Reads a `use` declaration into leaves: (scope, path, name it binds or None for `*`)."""
        code = self.code

        def tree(position, prefix):
            path = list(prefix)
            while True:
                text = code[position].text
                if text == "::":
                    position += 1
                elif text == "{":
                    position += 1
                    while code[position].text != "}":
                        position = tree(position, path)
                        position += code[position].text == ","
                    return position + 1
                elif text == "*":
                    self.uses.append((scope, path, None, code[at].line))
                    return position + 1
                else:
                    path = path + [text]
                    position += 1
                    if code[position].text == "::":
                        continue
                    alias = path[-1]
                    if path[-1] == "self" and len(path) > 1:
                        path = path[:-1]
                        alias = path[-1]
                    if code[position].text == "as":
                        alias = code[position + 1].text
                        position += 2
                    self.uses.append((scope, path, alias, code[at].line))
                    return position

        return tree(at + 1, []) + 1

    def is_visibility(self, at):
        """Whether the path at `at` is that of a `pub(in PATH)`, which is no import."""
        return [token.text for token in self.code[max(0, at - 3):at]] == ["pub", "(", "in"]

    def read_path(self, at, scope):
        """Reads a path of at least two segments and returns the position after it."""
        code, path, position = self.code, [self.code[at].text], at + 1
        while position + 1 < len(code) and code[position].text == "::" and code[position + 1].kind == "name":
            path.append(code[position + 1].text)
            position += 2
        if len(path) > 1 and (at == 0 or code[at - 1].text not in (".", "::")) and not self.is_visibility(at):
            self.paths.append((scope, path, code[at].line))
        return position


class Tree:
    """All production files below one folder, and what they import from each other."""

    def __init__(self, root):
        self.root = Path(root)
        names = sorted(p for p in self.root.rglob("*.rs") if not self.is_test(p))
        self.files = {path: File(path) for path in names}
        tests = {self.module_of(path) + (name,) for path, file in self.files.items() for name in file.test_modules}
        self.files = {path: file for path, file in self.files.items()
                      if not any(self.module_of(path)[:len(test)] == test for test in tests)}
        self.modules = {self.module_of(path): path for path in self.files}
        self.inner = {}      # inline modules
        for path, file in self.files.items():
            for item in file.items:
                for depth in range(1, len(item)):
                    self.inner[self.module_of(path) + item[:depth]] = path

    def is_test(self, path):
        parts = path.relative_to(self.root).parts
        return any(part in TEST_PARTS for part in parts)

    def crate_of(self, path):
        """The folder of the crate's root: the highest above `path` that has a lib.rs or a main.rs."""
        best = self.root
        for folder in [*path.parents][::-1]:
            if folder.is_relative_to(self.root) and ((folder / "lib.rs").exists() or (folder / "main.rs").exists()):
                return folder
        return best

    def module_of(self, path):
        """(crate, module, ...) of a file."""
        crate = self.crate_of(path)
        parts = list(path.relative_to(crate).with_suffix("").parts)
        if parts[-1] == "mod" or parts in (["lib"], ["main"]):
            parts.pop()
        return (str(crate), *parts)

    def is_module(self, module):
        return module in self.modules or module in self.inner

    def file_of(self, module):
        return self.modules.get(module) or self.inner.get(module)

    def scope_of(self, module):
        """How deep `module` lies inside its file, and the names there."""
        path = self.file_of(module)
        return module[len(self.module_of(path)):] if path else ()

    def find(self, module, path, seen=frozenset()):
        """The (module, item) that `path` means in `module`; item is None for a module. None if it leaves the tree."""
        key = (module, tuple(path))
        if key in seen or not path:
            return None
        seen = seen | {key}
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.walk((module[0],), rest, seen)
        if first == "self":
            return self.walk(module, rest, seen)
        if first == "super":
            return self.walk(module[:-1], rest, seen)
        return self.walk(module, path, seen)

    def walk(self, module, path, seen):
        """Goes down from `module` along `path`, through modules and re-exports."""
        if not path:
            return module, None
        first, rest = path[0], path[1:]
        if first == "super":
            return self.walk(module[:-1], rest, seen)
        if self.is_module(module + (first,)) and (rest or not self.has_item(module, first)):
            return self.walk(module + (first,), rest, seen)
        if self.has_item(module, first):
            return module, first
        file = self.files.get(self.file_of(module))
        if file is None:
            return None
        here = [use for use in file.uses if use[0] == self.scope_of(module)]
        return self.named(module, path, here, seen) or self.through_globs(module, path, here, seen)

    def named(self, module, path, uses, seen):
        """Follows a `use` that binds the first name of `path`."""
        for _, target, name, _ in uses:
            if name == path[0] and target != [name]:
                found = self.find(module, target, seen)
                if found:
                    return found if found[1] else self.walk(found[0], path[1:], seen)
        return None

    def through_globs(self, module, path, uses, seen):
        """Looks for `path` in the modules that `module` imports whole."""
        for _, target, name, _ in uses:
            inner = self.find(module, target, seen) if name is None else None
            key = (inner[0], tuple(path)) if inner else None
            if inner and inner[1] is None and inner[0] != module and key not in seen:
                found = self.walk(inner[0], path, seen | {key})
                if found:
                    return found
        return None

    def has_item(self, module, name):
        path = self.file_of(module)
        return path is not None and self.scope_of(module) + (name,) in self.files[path].items

    def imports(self):
        """Edges between files: from -> {to}."""
        edges = defaultdict(set)
        for path, file in self.files.items():
            module = self.module_of(path)
            for scope, target, *_ in file.uses + file.paths:
                found = self.find(module + scope, target)
                other = self.file_of(found[0]) if found else None
                if other and other != path:
                    edges[path].add(other)
        return edges


def circles(edges):
    """Strongly connected components of at least two nodes, largest first (Tarjan, without recursion)."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []
    for start in list(edges):
        if start in index:
            continue
        work = [(start, iter(sorted(edges.get(start, ()), key=str)))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        top = stack.pop()
                        on_stack.discard(top)
                        component.append(top)
                        if top == node:
                            break
                    if len(component) > 1:
                        found.append(sorted(component, key=str))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(sorted(edges.get(following, ()), key=str))))
            elif following in on_stack:
                low[node] = min(low[node], index[following])
    return sorted(found, key=len, reverse=True)


def folder_circles(tree, edges):
    """Circles between the sub-folders and files of one folder that contain at least one sub-folder."""
    found = []
    folders = {folder for path in tree.files for folder in path.parents if folder.is_relative_to(tree.root)}
    for folder in sorted(folders):
        parts = defaultdict(set)
        for a, b in ((a, b) for a, others in edges.items() for b in others):
            if folder in a.parents and folder in b.parents:
                a, b = part_of(folder, a), part_of(folder, b)
                if a and b and a != b:
                    parts[a].add(b)
        found += [circle for circle in circles(parts) if any(part.is_dir() for part in circle)]
    return found


def part_of(folder, path):
    """The sub-folder or file of `folder` in which `path` lies; `a.rs` and the folder `a` are one. None for its face."""
    part = path.relative_to(folder).parts[0]
    return None if part in FACES else (folder / part).with_suffix("")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0


def share(part, whole):
    return f"{100 * part / (whole or 1):.1f} %"


def sizes(found):
    return f"{len(found)} ({', '.join(str(len(circle)) for circle in found)})" if found else "none"


def file_rows(files):
    lines = [file.lines for file in files]
    return [
        ("files / production lines", f"{len(files)} / {sum(lines):,}"),
        ("lines per file: median / max", f"{statistics.median(lines):.0f} / {max(lines):,}"),
    ]


def function_rows(functions):
    lengths = [lines for lines, *_ in functions] or [0]
    arguments = [count for _, count, *_ in functions] or [0]
    deep = sum(depth >= 5 for _, _, depth, _ in functions)
    middle = f"{statistics.median(lengths):.0f} / {statistics.mean(lengths):.1f}"
    ends = f"{percentile(lengths, .9)} / {percentile(lengths, .99)} / {max(lengths)}"
    return [
        ("functions", f"{len(functions):,}"),
        ("lines per function: median / mean / p90 / p99 / max", f"{middle} / {ends}"),
        (f"functions longer than {LONG} lines", str(sum(length > LONG for length in lengths))),
        ("functions with more than 4 arguments (most)", f"{sum(n > 4 for n in arguments)} ({max(arguments)})"),
        ("functions of brace depth 5 or more", share(deep, len(functions))),
    ]


def type_rows(types):
    """`types` counts the types of each name."""
    one_word = [name for name in types if sum(c.isupper() for c in name) <= 1]
    shared = [name for name, count in types.items() if count > 1]
    return [
        ("distinct type names", str(len(types))),
        ("type names of one word", f"{len(one_word)} ({share(len(one_word), len(types))})"),
        ("mean length of a type name", f"{statistics.mean([len(name) for name in types] or [0]):.1f}"),
        ("type names that several types share", f"{len(shared)} ({share(len(shared), len(types))})"),
    ]


def folder_rows(tree):
    modules = defaultdict(set)
    for path in tree.files:
        if path.name not in FACES:
            modules[path.parent].add(path.stem)
        if path.parent != tree.root:
            modules[path.parent.parent].add(path.parent.name)
    counts = {str(folder.relative_to(tree.root.parent)): len(names) for folder, names in sorted(modules.items())}
    most = max(counts, key=counts.get, default="")
    crowded = ", ".join(f"{folder}: {count}" for folder, count in counts.items() if count > CROWDED)
    return [
        ("most modules in a folder", f"{counts.get(most, 0)} ({most})"),
        (f"folders of more than {CROWDED} modules", crowded or "none"),
    ]


def comment_rows(files):
    comments = "\n".join(re.sub(r"^\s*(?://[/!]?|/\*+|\*/?)", "", line) for file in files for comment in file.comments
                         for line in comment.text.split("\n"))
    prose = re.sub(r"\s+", " ", re.sub(r"\n\s*\n", ". ", comments))
    words = len(re.findall(r"[A-Za-z][\w'-]*", comments)) or 1
    docs = sum(file.doc_lines for file in files) / (sum(file.code_lines for file in files) or 1)
    rows = [
        ("doc lines / code lines", f"{docs:.2f}"),
        (f"comment lines wider than {MAX_WIDTH}", str(sum(file.wide for file in files))),
        ("words of comment", f"{words:,}"),
    ]
    for name, pattern in PATTERNS:
        found = re.findall(pattern, prose, 0 if "Who" in pattern else re.I)
        rows.append((f"{name}, per 1,000 words", f"{1000 * len(found) / words:.2f}"))
    return rows


def measure(root):
    """All rows of one tree, and the names behind the counts."""
    tree = Tree(root)
    files = list(tree.files.values())
    functions = [function for file in files for function in file.functions]
    types = Counter(name for file in files for name in file.types)
    edges = tree.imports()
    knots, between = circles(edges), folder_circles(tree, edges)
    rows = [
        *file_rows(files), *function_rows(functions), *type_rows(types), *folder_rows(tree),
        ("circles of files (sizes)", sizes(knots)), ("circles between folders (sizes)", sizes(between)),
        *comment_rows(files),
    ]
    long = [f"{place}: {lines}" for lines, _, _, place in sorted(functions, reverse=True) if lines > LONG]
    shared = sorted((name for name, count in types.items() if count > 1), key=lambda name: (-types[name], name))
    lists = {f"Functions longer than {LONG} lines": long, "Type names that several types share": shared}
    return rows, lists, knots, between


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("-")] or ["src"]
    if "-h" in sys.argv or "--help" in sys.argv:
        print(__doc__)
        return
    measured = [measure(root) for root in arguments]
    print("| | " + " | ".join(arguments) + " |")
    print("|---|" + "---|" * len(arguments))
    for row in zip(*(rows for rows, *_ in measured)):
        print(f"| {row[0][0]} | " + " | ".join(value for _, value in row) + " |")
    if len(arguments) == 1:
        print_details(arguments[0], *measured[0][1:])


def print_details(root, lists, knots, between):
    """Names what the table of a single tree only counts."""
    for title, names in lists.items():
        print(f"\n{title}: " + (", ".join(f"`{name}`" for name in names) or "none") + ".")
    for title, found in (("Circle of files", knots), ("Circle between folders", between)):
        for circle in found:
            print(f"\n{title}: " + ", ".join(f"`{Path(path).relative_to(root)}`" for path in circle) + ".")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader of the output may close it early
    main()
