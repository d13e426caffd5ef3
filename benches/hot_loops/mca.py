#!/usr/bin/env python3
"""Estimates hot loops on CPUs that are not here: cycles an element, beside those of the divider alone.

    python3 benches/hot_loops/mca.py                   # builds the crate for x86-64 and AArch64: some minutes
    python3 benches/hot_loops/mca.py FILE.s...         # reads assembly that is there
    python3 benches/hot_loops/mca.py --write [FILE.s...]    # puts the table into docs/speed.md

Needs what check.py needs, and llvm-mca of LLVM 17 or later: Debian's llvm-19. The environment variable MCA names it
where it is not `llvm-mca`.

The limit of a loop is the slower of two others: its divisions and square roots alone, and its loads and stores alone.
"""

import os
import re
import subprocess
import sys

import assembly

MCA = os.environ.get("MCA", "llvm-mca")
# What llvm-mca calls a CPU, and the set that the crate chooses on it.
CPUS = {
    "skylake-avx512": ("x86_64", "avx512"),
    "icelake-server": ("x86_64", "avx512"),
    "znver3": ("x86_64", "avx2"),
    "znver4": ("x86_64", "avx512"),
    "neoverse-n1": ("aarch64", "neon"),
    "neoverse-v1": ("aarch64", "neon"),
    "neoverse-v2": ("aarch64", "neon"),
    "apple-m1": ("aarch64", "neon"),
}
# The loops: the rule, the arrays that are written, and the place in the order of arithmetic.
LOOPS = {
    "Adam": ("Adam", 3, 0),
    "Adam, decay": ("Adam", 3, 1),
    "SGD momentum": ("Sgd", 2, 0),
    "Lion": ("Lion", 2, 0),
    "AdaGrad": ("AdaGrad", 2, 0),
    "RMSProp": ("RmsProp", 2, 0),
}
LANES = {"avx2": 8, "avx512": 16, "neon": 4}
ITERATIONS = 500


def cycles(machine, cpu, lines):
    """Cycles that an iteration of a loop takes."""
    command = [MCA, f"-mtriple={machine}-unknown-linux-gnu", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    output = subprocess.run(command, input="\n".join(lines), capture_output=True, check=True, text=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", output).group(1)) / ITERATIONS


def text(loop):
    return [f"{instruction.name} {instruction.operands}" for instruction in loop]


def divider_alone(isa, loop):
    """As many divisions and roots as a loop has, each for itself."""
    lines = []
    for instruction in loop:
        if instruction.is_division() or instruction.is_root():
            to = len(lines) % 16
            if isa == "neon":
                sources = ", ".join(["v30.4s"] * (1 + instruction.is_division()))
                lines.append(f"{instruction.name} v{to}.4s, {sources}")
            else:
                register = {"avx2": "ymm", "avx512": "zmm"}[isa]
                # The upper half of 32 registers needs AVX-512.
                sources = ", ".join([f"%{register}15"] * (1 + instruction.is_division()))
                lines.append(f"{instruction.name} {sources}, %{register}{to % 15}")
    return lines


def bytes_alone(isa, loop):
    """The loads and stores of a loop alone."""
    registers = assembly.REGISTERS[isa]
    lines = []
    for instruction in loop:
        if isa == "neon":
            if instruction.name in ("ldr", "ldp", "ldur", "stp") and re.match(registers, instruction.operands):
                lines.append(f"{instruction.name} {instruction.operands}")
        elif instruction.stored(registers):
            lines.append(f"{instruction.name} {instruction.operands}")
        # Loads may be part of an instruction that computes; constants on the stack are not counted.
        elif (
            (memory := re.search(r"[^\s,]*\([^)]*\)", instruction.operands))
            and re.search(registers, instruction.operands)
            and "%rsp" not in memory.group()
        ):
            register = {"avx2": "ymm", "avx512": "zmm"}[isa]
            lines.append(f"vmovups {memory.group()}, %{register}{len(lines) % 15}")
    return lines


def find(loops, isa, rule, written, place):
    """A hot loop of a rule in f32, without prefetches, and without the factor for gradients of mixed precision."""
    registers = assembly.REGISTERS[isa]

    def work(loop):
        products = sum(instruction.is_product() for instruction in loop)
        return products, sum(instruction.is_arithmetic(registers) for instruction in loop)

    found = [
        loop
        for of_loop, loop in loops
        if of_loop == (isa, rule, "f32")
        and sum(instruction.stored(registers) for instruction in loop) == written * assembly.TOGETHER
        and not any(instruction.is_prefetch() for instruction in loop)
    ]
    return sorted(found, key=work)[place]


def table(loops):
    """The lines of the table: for each loop and CPU, cycles an element and how many times the limit they are."""
    yield ["", *CPUS]
    yield ["---"] * (1 + len(CPUS))
    for title, (rule, written, place) in LOOPS.items():
        row = [title]
        for cpu, (machine, isa) in CPUS.items():
            loop = find(loops, isa, rule, written, place)
            whole = cycles(machine, cpu, text(loop))
            alone = [lines for lines in (divider_alone(isa, loop), bytes_alone(isa, loop)) if lines]
            limit = max(cycles(machine, cpu, lines) for lines in alone)
            row.append(f"{whole / (assembly.TOGETHER * LANES[isa]):.2f}, {whole / limit:.2f}")
        yield row


def main(arguments):
    functions = assembly.read([argument for argument in arguments if argument != "--write"])
    loops = [((isa, rule, kind), loop) for isa, rule, kind, loop in assembly.hot_loops(functions)]
    lines = [f"| {' | '.join(row)} |" for row in table(loops)]
    print("\n".join(lines))
    if "--write" in arguments:
        versions = [
            re.search(r"LLVM version ([\d.]+)", run([MCA, "--version"])).group(1),
            re.search(r"rustc ([\d.]+)", run(["rustc", "--version"])).group(1),
        ]
        stamp = "llvm-mca {}, rustc {}:".format(*versions)
        page = assembly.ROOT / "docs" / "speed.md"
        begin, end = "<!-- mca.py writes from here -->\n", "<!-- to here -->\n"
        before, rest = page.read_text().split(begin)
        after = rest.split(end)[1]
        page.write_text(before + begin + "\n" + stamp + "\n\n" + "\n".join(lines) + "\n\n" + end + after)


def run(command):
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
