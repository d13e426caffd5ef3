"""Functions and their innermost loops, out of the assembly that rustc writes.

A loop here is a list of instructions in the order of the file: those of all blocks from which the loop's head can be
reached again, and which no smaller loop within it owns.
"""

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}

# Registers that a loop takes at a time: `kernel::TOGETHER`.
TOGETHER = 2
# What the names of registers of a set look like in full width, in operands.
REGISTERS = {"avx2": r"%ymm\d+", "avx512": r"%zmm\d+", "neon": r"\bv\d+\.(?:4s|2d)|\bq\d+"}
LABEL = re.compile(r"\.L\w+")


# For assembly of the code that users have: as many units as cargo takes for a release, where rustc would take one for
# assembly. What is inlined, and what becomes a call of memset, differs. In v0 only, symbols have all their types.
FLAGS = ["--emit", "asm", "-C", "codegen-units=16", "-C", "symbol-mangling-version=v0"]


def compiled(machine):
    """The files of assembly of the crate, as it is built for release; `machine` is a key of TARGETS."""
    # A folder for each, since one cargo waits for the other in a common one.
    target = ROOT / "target" / "hot-loops" / machine
    command = ["cargo", "rustc", "-p", "adamant", "--release", "--lib", "--target", TARGETS[machine]]
    subprocess.run([*command, "--target-dir", str(target), "--", *FLAGS], cwd=ROOT, check=True)
    return newest(target / TARGETS[machine] / "release" / "deps")


def newest(folder):
    """The files of the last build in a folder of cargo's."""
    # rustc writes the metadata before the assembly; what is older is of another build.
    start = max((path.stat().st_mtime for path in folder.glob("libadamant-*.rmeta")), default=0)
    found = sorted(path for path in folder.glob("adamant-*.s") if path.stat().st_mtime >= start)
    if not found:
        sys.exit(f"the last build of adamant in {folder}, if there is one, has no assembly")
    return found


def limits(machine):
    """The functions of the loops that the roofline's limits are measured by, compiled alone: building the bench takes
    minutes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.s"
        command = [
            "rustc",
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--target",
            TARGETS[machine],
            "-C",
            "opt-level=3",
        ]
        flags = ["--emit", "asm", "-C", "symbol-mangling-version=v0", "-A", "dead_code", "-o", str(path)]
        subprocess.run([*command, *flags, "benches/hot_loops/limits.rs"], cwd=ROOT, check=True)
        return functions(path)


def read(arguments):
    """The functions of files of assembly, of the last build in folders of cargo's, or of machines; of all machines if
    there is none of them."""

    def files(argument):
        if argument in TARGETS:
            return compiled(argument)
        return newest(Path(argument)) if Path(argument).is_dir() else [Path(argument)]

    # At the same time: much of a build is one thread.
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(files, arguments or TARGETS))
    return [function for paths in found for path in paths for function in functions(path)]


@dataclass(frozen=True)
class Instruction:
    """An instruction: `name` is its mnemonic, `operands` the rest as it stands."""

    name: str
    operands: str

    def is_conditional_jump(self):
        if re.fullmatch(r"j\w+", self.name):
            return not self.name.startswith("jmp")
        return self.name.startswith("b.") or self.name in ("cbz", "cbnz", "tbz", "tbnz")

    def is_jump(self):
        return self.is_conditional_jump() or self.name in ("jmp", "jmpq", "b", "br")

    def is_end(self):
        """Whether the next instruction of the file never follows."""
        return self.name in ("jmp", "jmpq", "b", "br", "ret", "retq", "ud2", "brk", "udf")

    def is_comparison(self):
        """Whether it compares scalars, of either kind."""
        name = self.name
        return bool(re.fullmatch(r"v?u?comis[sd]|cmp[bwlq]|test[bwlq]|fc?cmpe?|cc?mp|cc?mn|tst|subs|adds", name))

    def is_division(self):
        return bool(re.match(r"v?f?div[ps]?[sd]?$", self.name))

    def is_root(self):
        return bool(re.match(r"v?f?sqrt[ps]?[sd]?$", self.name))

    def stored(self, registers):
        """How many whole registers it writes to memory, the stack apart."""
        if "sp" in self.operands.split("[")[-1].split("(")[-1]:
            return 0
        if self.name == "stp":
            # Of NEON. What writes one register only takes what is left, or is scalar code that LLVM joined.
            return 2 if re.match(registers, self.operands) else 0
        return int(self.name.startswith("vmov") and bool(re.fullmatch(registers + r", [^%]*\(.*\)", self.operands)))

    def is_arithmetic(self, registers):
        """Whether it computes with whole registers of floats."""
        return bool(re.match(r"v(fn?m|div|mul|sub|add)\w*p[sd]$|f(n?m|div|mul|sub|add)", self.name)) and bool(
            re.search(registers, self.operands)
        )

    def is_product(self):
        """Whether it multiplies, and adds nothing."""
        return bool(re.match(r"v?f?mul(p[sd])?$", self.name))

    def is_prefetch(self):
        return self.name.startswith(("prefetch", "prfm"))

    def is_memory(self):
        """Whether it reads memory, writes it, or asks for it."""
        return ("(" in self.operands or "[" in self.operands) and not self.name.startswith("lea")

    def is_call(self):
        return self.name in ("call", "callq", "bl", "blr")


@dataclass
class Function:
    """A function's instructions, and where its labels stand between them."""

    symbol: str
    code: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)
    # Of each table of jumps, the labels that it leads to.
    tables: dict = field(default_factory=dict)

    def loops(self):
        """Its innermost loops."""
        blocks = self.blocks()
        found = innermost({start: after for start, (_, after) in blocks.items()})
        return [[self.code[i] for start in sorted(loop) for i in range(start, blocks[start][0])] for loop in found]

    def has_nested_loops(self):
        """Whether a loop is within another one."""
        after = {start: after for start, (_, after) in self.blocks().items()}
        loops = [loop for loop in components(after) if len(loop) > 1 or loop & set(after[next(iter(loop))])]
        return sorted(map(sorted, loops)) != sorted(map(sorted, innermost(after)))

    def blocks(self):
        """Of each block's first position its end, and the first positions of those that may follow."""
        starts = {0, *self.labels.values()}
        starts |= {i + 1 for i, instruction in enumerate(self.code) if instruction.is_jump() or instruction.is_end()}
        starts = sorted(start for start in starts if start < len(self.code))
        blocks = {}
        for start, end in zip(starts, [*starts[1:], len(self.code)]):
            last = self.code[end - 1]
            after = [] if last.is_end() or end == len(self.code) else [end]
            if last.is_jump():
                to = LABEL.search(last.operands)
                labels = [to.group()] if to else [label for table in self.tables.values() for label in table]
                after += [
                    self.labels[label] for label in labels if self.labels.get(label, len(self.code)) < len(self.code)
                ]
            blocks[start] = end, after
        return blocks


def functions(path):
    """The functions of a file of assembly."""
    found, by_number = [], {}
    function, table = None, None
    for line in path.read_text().splitlines():
        if label := re.match(r'"?([\w.$]+)"?:', line):
            name = label.group(1)
            table = None
            if number := re.fullmatch(r"\.LJTI(\d+)_\d+", name):
                # A table stands behind its function, whose blocks have the same number.
                table = by_number[number.group(1)].tables.setdefault(name, [])
            elif number := re.fullmatch(r"\.LBB(\d+)_\d+", name):
                by_number[number.group(1)] = function
                function.labels[name] = len(function.code)
            elif not name.startswith(".L"):
                function = Function(name)
                found.append(function)
        elif table is not None and re.match(r"\s+\.\w+\s+.*\.LBB", line):
            table += LABEL.findall(line)[:1]
        elif function is not None and (code := re.match(r"\s+([a-z][\w.]*)\s*(.*?)\s*(?:\s# .*|//.*)?$", line)):
            function.code.append(Instruction(*code.groups()))
    return [function for function in found if function.code]


def demangled(functions):
    """Pairs of a function's name, with its types and without hashes, and the function."""
    symbols = "\n".join(function.symbol for function in functions)
    names = subprocess.run(["c++filt"], input=symbols, capture_output=True, check=True, text=True).stdout
    names = re.sub(r"\[[0-9a-f]+\]", "", names).replace("adamant::rule::", "").splitlines()
    return [(re.sub(r"<\w+::(?=[A-Z])", "<", name), function) for name, function in zip(names, functions)]


def hot_loops(functions):
    """The hot loops of the rules' steps, each with its set, its rule and its kind: those that compute with whole
    registers and write them.

    Kinds are `f32`, `f64`, `mixed` for `f32` in strips of what is in mixed precision, and `converting` for loops that
    convert as they read and write. NEON is part of every AArch64, so that all loops of a rule are inlined into one
    function unless they are too large: there, `f32` is `mixed` too.
    """
    for name, function in demangled(functions):
        if entry := re.search(r"isa::apart_(on_avx2|on_avx512|here)::<.*in_loop::Sweep<.*?, (?:\w+::)*(\w+)>>", name):
            isa = {"on_avx2": "avx2", "on_avx512": "avx512", "here": "neon"}[entry[1]]
            rule, kind = entry[2], "converting"
        elif entry := re.search(r"(?:kernel|mixed::sweep)::Sweep<(\w+)(?:, (f32|f64))?[,>]", name):
            rule, kind = entry.groups()
            isa = "avx2" if "with_f16c" in name else "avx512" if "V4>::vectorize" in name else None
            if "Neon>::vectorize" in name and kind:
                isa = "neon"
        elif entry := re.search(
            r"\b(?:dispatch::run|mixed::run|kernel::sweep_elements)::<(\w+)[,>]"
            r"|^<(\w+) as Rule>::run_(?:elements|rows)$",
            name,
        ):
            rule, kind, isa = entry.group(1) or entry.group(2), None, "neon"
        else:
            continue
        # Others are scalar.
        for loop in function.loops() if isa else []:
            registers = REGISTERS[isa]
            floats = [instruction for instruction in loop if instruction.is_arithmetic(registers)]
            if floats and any(instruction.stored(registers) for instruction in loop):
                of_loop = kind or "mixed"
                if isa == "neon" and kind != "converting":
                    of_loop = "f64" if ".2d" in floats[0].operands else "f32"
                yield isa, rule, of_loop, loop


def innermost(after):
    """The innermost loops of a graph, as sets; `after` has each node's followers."""
    loops = []
    work = [set(after)]
    while work:
        nodes = work.pop()
        for component in components({node: [to for to in after[node] if to in nodes] for node in nodes}):
            if len(component) == 1 and not component & set(after[next(iter(component))]):
                continue
            heads = {to for node in after if node not in component for to in after[node]} & component
            inside = component - (heads or {min(component)})
            if any(
                len(inner) > 1 or inner & set(after[next(iter(inner))])
                for inner in components({node: [to for to in after[node] if to in inside] for node in inside})
            ):
                work.append(inside)
            else:
                loops.append(component)
    return loops


def components(after):
    """The strongly connected components of a graph, as sets, by Kosaraju's algorithm."""
    order, seen = [], set()
    for root in after:
        path = [] if root in seen else [(root, iter(after[root]))]
        seen.add(root)
        while path:
            node, rest = path[-1]
            to = next((to for to in rest if to not in seen), None)
            if to is None:
                order.append(path.pop()[0])
            else:
                seen.add(to)
                path.append((to, iter(after[to])))
    before = {node: [] for node in after}
    for node, followers in after.items():
        for to in followers:
            before[to].append(node)
    found, seen = [], set()
    for root in reversed(order):
        if root in seen:
            continue
        component, path = {root}, [root]
        seen.add(root)
        while path:
            for node in before[path.pop()]:
                if node not in seen:
                    seen.add(node)
                    component.add(node)
                    path.append(node)
        found.append(component)
    return found
