"""python3 -m unittest discover benches/hot_loops"""

import tempfile
import unittest
from pathlib import Path

import assembly
import check

# A loop around two: one has a branch on a setting, its other way lies behind the function's end.
X86 = """
_step:
	testq	%rdi, %rdi
	je	.LBB0_5
.LBB0_1:
	xorl	%ecx, %ecx
.LBB0_2:
	vmovups	(%rsi,%rcx), %ymm0  # a comment
	cmpb	$0, 8(%rsp)
	jne	.LBB0_6
.LBB0_3:
	vdivps	%ymm1, %ymm0, %ymm0
	vmovups	%ymm0, (%rsi,%rcx)
	addq	$32, %rcx
	decq	%rdx
	jne	.LBB0_2
.LBB0_4:
	vmulps	%ymm1, %ymm0, %ymm0
	vmovups	%ymm0, (%rsi)
	addq	$32, %rsi
	decq	%r8
	jne	.LBB0_4
	decq	%rdi
	jne	.LBB0_1
.LBB0_5:
	retq
.LBB0_6:
	vxorps	%ymm2, %ymm0, %ymm0
	jmp	.LBB0_3
"""

NEON = """
_step:
.LBB0_1:
	ldp	q0, q1, [x8, #-16]
	subs	x9, x9, #2
	fmul	v0.4s, v0.4s, v2.4s
	fmul	v1.4s, v1.4s, v2.4s
	stp	q0, q1, [x8, #-16]
	add	x8, x8, #32
	b.ne	.LBB0_1
	ret
"""


def function(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.s"
        path.write_text(text)
        (found,) = assembly.functions(path)
    return found


def loops(text):
    return sorted(function(text).loops(), key=len)


class Loops(unittest.TestCase):
    def test_innermost_loops_are_found_with_blocks_that_lie_elsewhere(self):
        short, long = loops(X86)
        self.assertEqual([instruction.name for instruction in short], ["vmulps", "vmovups", "addq", "decq", "jne"])
        self.assertEqual(long[-2].name, "vxorps")

    def test_a_branch_on_a_setting_is_counted(self):
        short, long = map(check.count, loops(X86))
        self.assertEqual((short["jumps"], short["comparisons"], short["divisions"]), (1, 0, 0))
        self.assertEqual((long["jumps"], long["comparisons"], long["divisions"]), (2, 1, 1))

    def test_operands_of_arm_are_kept_whole(self):
        (loop,) = loops(NEON)
        self.assertEqual(loop[0].operands, "q0, q1, [x8, #-16]")
        self.assertEqual(sum(instruction.stored(assembly.REGISTERS["neon"]) for instruction in loop), 2)
        self.assertEqual(check.count(loop)["jumps"], 1)

    def test_a_loop_in_a_loop_is_seen(self):
        self.assertTrue(function(X86).has_nested_loops())
        self.assertFalse(function(NEON).has_nested_loops())

    def test_the_loops_of_limits_are_told_apart(self):
        slow, fast = function(X86), function(NEON)
        slow.symbol, fast.symbol = "sweep::x86::avx2", "sweep::neon::neon"
        whole = check.VARIANTS * check.shapes()
        self.assertEqual(check.limit_loops([fast] * whole)[0], whole)
        faults = check.limit_loops([fast] * whole)[1]
        self.assertEqual(faults, [])
        self.assertIn("2 loops", check.limit_loops([slow] * whole)[1][0])
        self.assertEqual(len(check.limit_loops([fast] * (whole - 1))[1]), 1)
        self.assertEqual(check.limit_loops([function(NEON)]), (0, ["the loops were not found"]))
        fast.code.insert(1, assembly.Instruction("cbz", "x1, .LBB0_1"))
        self.assertIn("2 conditional jumps", check.limit_loops([fast] * whole)[1][0])

    def test_faults_are_told(self):
        clean = {"jumps": 1, "comparisons": 1, "roots": 2, "divisions": 2}
        good = check.Counter(clean)
        self.assertEqual(check.faults("Adam", "avx2", "f32", [good]), [])
        for what, number in (("jumps", 2), ("comparisons", 2), ("calls", 1), ("masked", 1), ("roots", 1)):
            bad = check.Counter({**clean, what: number})
            self.assertEqual(len(check.faults("Adam", "avx2", "f32", [good, bad])), 1, what)
        self.assertEqual(len(check.faults("Adam", "avx2", "f32", [])), 1)


if __name__ == "__main__":
    unittest.main()
