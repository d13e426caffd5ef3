#!/usr/bin/env python3
"""Counts what the optimizers' hot loops consist of, and fails where one branches on more than its end; and where a loop
that the roofline's limits are measured by does.

    python3 benches/hot_loops/check.py                 # builds the crate for x86-64 and AArch64: some minutes
    python3 benches/hot_loops/check.py x86_64          # for one of them
    python3 benches/hot_loops/check.py FILE.s...       # reads assembly that is there
    python3 benches/hot_loops/check.py FOLDER...       # the same, of a build with the flags of assembly.py: .../deps

Needs cargo with the targets, and c++filt (binutils). Nothing is run: AVX-512 and NEON are judged on any machine.
"""

import re
import sys
from collections import Counter, defaultdict

import assembly

# Where a loop jumps more often than back to its start: rule, set, kind; the number of jumps; the reason.
# Loops that convert as they read and write check bounds; nothing in them depends on settings.
ACCEPTED = {
    ("Adam", "avx2", "converting"): (12, "bounds of arrays that are read and written"),
    ("Adam", "avx512", "converting"): (7, "bounds of arrays that are read and written"),
    ("Adam", "neon", "converting"): (7, "bounds of arrays that are read and written"),
}

# The rules with `CONVERTS_IN_LOOP`.
CONVERTING = {"Adam"}

# Of each machine, the sets and their kinds of loops.
SETS = {
    "x86_64": {"avx2": ("f32", "f64", "mixed", "converting"), "avx512": ("f32", "f64", "mixed", "converting")},
    "aarch64": {"neon": ("f32", "f64", "converting")},
}


def optimizers():
    """Of each rule of the crate's list, the roots and quotients of a step."""
    text = (assembly.ROOT / "src/rule/list.rs").read_text()
    rows = re.findall(r'^    (\w+), ".*?\}, (\d), (\d);$', text, re.DOTALL | re.MULTILINE)
    return {rule: (int(roots), int(quotients)) for rule, roots, quotients in rows}


def count(loop):
    """What a loop has of each that is counted."""
    return Counter(
        instructions=len(loop),
        jumps=sum(instruction.is_conditional_jump() for instruction in loop),
        comparisons=sum(instruction.is_comparison() for instruction in loop),
        # Of AVX2, where AMD's CPUs take as long for one as for twenty others.
        masked=sum(instruction.name.startswith("vmaskmov") for instruction in loop),
        calls=sum(instruction.is_call() for instruction in loop),
        divisions=sum(instruction.is_division() for instruction in loop),
        roots=sum(instruction.is_root() for instruction in loop),
    )


def faults(rule, isa, kind, loops):
    """What is wrong with the hot loops of a rule, each fault once."""
    if not loops:
        return ["no hot loop was found"]
    roots, quotients = (assembly.TOGETHER * number for number in optimizers()[rule])
    accepted, _ = ACCEPTED.get((rule, isa, kind), (1, ""))
    worst = Counter()
    for counts in loops:
        worst |= counts
    found = []
    if worst["jumps"] > accepted:
        found.append(f"{worst['jumps']} conditional jumps, {accepted} accepted")
    # With 512 bits one more keeps the loads of the next pair within the arrays: a minimum, no jump.
    comparisons = max(accepted, 2) if isa == "avx512" else accepted
    if worst["comparisons"] > comparisons:
        found.append(f"{worst['comparisons']} scalar comparisons, {comparisons} accepted")
    if worst["calls"]:
        found.append(f"{worst['calls']} calls")
    if worst["masked"]:
        found.append(f"{worst['masked']} masked moves")
    if any((counts["roots"], counts["divisions"]) != (roots, quotients) for counts in loops):
        found.append(f"not always the {roots} square roots and {quotients} divisions that src/rule/list.rs promises")
    if worst["jumps"] < accepted:
        found.append(f"{worst['jumps']} conditional jumps, fewer than the {accepted} accepted: mend the list")
    return found


def main(arguments):
    functions = assembly.read(arguments)
    loops = defaultdict(list)
    for isa, rule, kind, loop in assembly.hot_loops(functions):
        loops[isa, rule, kind].append(count(loop))
    found_sets = {isa for isa, _, _ in loops}
    machines = [machine for machine, sets in SETS.items() if found_sets & set(sets)]
    rules = optimizers()
    if not machines or {rule for _, rule, _ in loops} != set(rules):
        sys.exit("the functions found are not those of the rules in src/rule/list.rs")

    print("Loops over two registers at a time; of several, the least and the most.\n")
    print(f"{'':11}{'':7}{'':11}{'loops':>6}{'instructions':>14}{'jumps':>7}{'divisions':>11}{'roots':>7}")
    failed = False
    # All sets of a machine, since one that is missing is a fault.
    for isa, kinds in (item for machine in machines for item in SETS[machine].items()):
        for rule in rules:
            for kind in kinds:
                found = loops[isa, rule, kind]
                # Loops that no rule should have are judged, too.
                if kind == "converting" and rule not in CONVERTING and not found:
                    continue
                columns = [spread(found, what) for what in ("instructions", "jumps", "divisions", "roots")]
                print("{:11}{:7}{:11}{:6}{:>14}{:>7}{:>11}{:>7}".format(rule, isa, kind, len(found), *columns))
                for fault in faults(rule, isa, kind, found):
                    failed = True
                    print(f"    FAULT: {fault}")
    for machine in machines:
        loops, found = limit_loops(assembly.limits(machine))
        print(f"\n{loops} loops of the roofline's limits for {machine}")
        for fault in found:
            failed = True
            print(f"    FAULT: {fault}")
    if failed:
        sys.exit("hot loops are not what they should be: see FAULT above")


def limit_loops(functions):
    """The number of loops that the limits are measured by, and what is wrong with them: one that does more than move
    bytes and jump back is slower than the limit."""
    number, found = Counter(), []
    for name, function in assembly.demangled(functions):
        # Others are scalar, or choose between loops.
        isa = re.search(r"sweep::(?:x86|neon)::(\w+)", name)
        if not isa:
            continue
        number[isa.group(1)] += 1
        loops = function.loops()
        if len(loops) != 1 or function.has_nested_loops():
            found.append(f"{name}: {len(loops)} loops within others or beside them, and not one")
            continue
        counts = count(loops[0])
        if counts["jumps"] != 1 or counts["calls"]:
            found.append(f"{name}: {counts['jumps']} conditional jumps, {counts['calls']} calls")
        moves = sum(instruction.is_memory() for instruction in loops[0])
        if len(loops[0]) - moves > moves + BOOKKEEPING:
            found.append(f"{name}: {len(loops[0])} instructions, of which {moves} move bytes")
    for isa, functions_of in number.items():
        if functions_of != VARIANTS * shapes():
            found.append(f"{functions_of} functions for {isa}, and not {VARIANTS} for each of {shapes()} shapes")
    if not number:
        found.append("the loops were not found")
    return sum(number.values()), found


# Of each shape: one, two and four registers, with memory asked for ahead and without.
VARIANTS = 6
# Counting, comparing, jumping. On AArch64, where addresses are simpler, each access may take another instruction.
BOOKKEEPING = 4


def shapes():
    """The number of shapes of arrays that limits are measured for."""
    text = (assembly.ROOT / "benches/roofline/limits/sweep.rs").read_text()
    return len(re.findall(r"^    \((?:\d, ){5}\d\),$", text, re.MULTILINE))


def spread(loops, what):
    """The least and the most of something in some loops."""
    numbers = sorted({counts[what] for counts in loops})
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else "".join(map(str, numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
