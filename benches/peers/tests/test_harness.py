"""Tests of the harness itself: ``python3 -m unittest discover benches/peers/tests``. They need no library."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import unittest
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import driver, process  # noqa: E402
from harness.__main__ import main  # noqa: E402
from harness.cases import NAMES, Case, all_cases, explain, fits, gpt2  # noqa: E402
from harness.competitor import Competitor, Opened, sentence  # noqa: E402
from harness.driver import Driver, Plan, distance  # noqa: E402
from harness.install import ENVIRONMENTS, OVERLAYS, needed  # noqa: E402
from harness.libraries import SOURCES, Source  # noqa: E402
from harness.process import Process, WorkerError  # noqa: E402
from harness.report import Header, Row, count, cpu_name, tables, to_json  # noqa: E402


class FakeProcess:
    """A worker whose competitors take a given time, without one."""

    def __init__(self, module: str, steps: dict[str, float], moved: float = 1.0, seconds: float = 0.0) -> None:
        self.source, self.package, self.version = Source(module, ""), module, "1.0"
        self.steps, self.moved, self.seconds = steps, moved, seconds
        self.orders: list[str] = []
        self.fails: dict[str, str] = {}
        #: What it has run, each time that somebody looks; the last of them from then on.
        self.cpu_times = [0]

    def cpu_time(self) -> int:
        return self.cpu_times.pop(0) if len(self.cpu_times) > 1 else self.cpu_times[0]

    def order(self, do: str, **fields: Any) -> dict[str, Any]:
        self.orders.append(do)
        if do in self.fails:
            raise WorkerError(self.fails[do])
        if do == "open":
            return {"competitors": list(self.steps), "left_out": {}}
        if do == "moved":
            return {"moved": [self.moved, -self.moved]}
        if do == "reference":
            return {"moved": [1.0, -1.0]}
        if do == "time":
            LOG.append(list(self.steps)[fields["competitor"]])
            CLOCK[0] += self.seconds
            return {"ns": fields["repetitions"] * list(self.steps.values())[fields["competitor"]]}
        return {}

    def stop(self) -> None:
        self.orders.append("stop")


LOG: list[str] = []
CLOCK = [0.0]
CASE = Case("dense", "f32", (1000,))


def driver_of(*processes: FakeProcess, plan: Plan) -> Driver:
    made = Driver(Path("."), 2, [], plan, mock.Mock())
    made.processes = list(processes)  # type: ignore[arg-type]
    LOG.clear()
    return made


class TestCase(unittest.TestCase):
    def enter(self, manager: AbstractContextManager[Any]) -> Any:
        entered = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return entered


class Driving(TestCase):
    def setUp(self) -> None:
        self.enter(mock.patch.object(driver.time, "sleep"))
        self.enter(mock.patch.object(driver.time, "monotonic", lambda: CLOCK[0]))
        self.enter(mock.patch.object(driver, "free_memory", lambda: 1 << 40))
        self.enter(mock.patch("sys.stderr"))

    def test_competitors_are_measured_in_turn(self) -> None:
        made = driver_of(
            FakeProcess("pytorch", {"a": 5e6, "b": 7e6}), FakeProcess("other", {"c": 9e6}), plan=Plan(3, 3, 0.001, 1.0)
        )
        rows = made.measure(CASE)
        self.assertEqual(LOG[-9:], ["a", "b", "c"] * 3)
        self.assertEqual([row.ns_per_element for row in rows], [5e3, 7e3, 9e3])
        self.assertEqual([row.us_per_step for row in rows], [None] * 3)
        self.assertEqual({row.threads for row in rows}, {2})

    def test_a_measurement_begins_when_all_threads_sleep(self) -> None:
        spinning, other = FakeProcess("pytorch", {"a": 5e6}), FakeProcess("other", {"c": 9e6})
        made = driver_of(spinning, other, plan=Plan(1, 1, 0.001, 1.0))
        spinning.cpu_times, other.cpu_times = [10, 20, 30, 30], [5, 5, 5, 6, 6]
        made.measure(CASE)
        self.assertEqual((spinning.cpu_times, other.cpu_times), ([30], [6]))
        # Not for ever.
        spinning.cpu_times = list(range(1000))
        with mock.patch.object(driver.time, "monotonic", iter(tenth / 10 for tenth in range(100)).__next__):
            made._settle()
        self.assertEqual(len(spinning.cpu_times), 991)

    def test_the_time_of_a_process_goes_on_while_it_runs(self) -> None:
        this = object.__new__(Process)
        this._process = mock.Mock(pid=os.getpid())
        before, end = this.cpu_time(), time.process_time() + 0.05
        while time.process_time() < end:
            pass
        self.assertGreater(this.cpu_time(), before + 20_000_000)

    def test_short_steps_are_repeated(self) -> None:
        made = driver_of(FakeProcess("pytorch", {"a": 1000.0}), plan=Plan(1, 1, 0.002, 1.0))
        [row] = made.measure(CASE)
        self.assertEqual(row.ns_per_element, 1.0)
        contestant = driver.Contestant(made.processes[0], 0, "a")
        made._calibrate(contestant, CASE)
        self.assertEqual(contestant.repetitions, 2000)

    def test_slow_competitors_take_part_in_few_rounds(self) -> None:
        slow = FakeProcess("slow", {"s": 5e9}, seconds=5.0)
        made = driver_of(FakeProcess("pytorch", {"a": 5e6}), slow, plan=Plan(10, 3, 0.001, 1.0))
        made.measure(CASE)
        # One is the calibration.
        self.assertEqual((LOG.count("a"), LOG.count("s")), (11, 4))

    def test_wrong_results_are_left_out_and_named(self) -> None:
        made = driver_of(
            FakeProcess("pytorch", {"a": 1e6}), FakeProcess("wrong", {"w": 1.0}, moved=1.1), plan=Plan(1, 1, 0.001, 1.0)
        )
        self.assertEqual([row.competitor for row in made.measure(CASE)], ["a"])
        self.assertIn("10.0 % off", made.left_out["w: dense"])

    def test_workers_that_die_are_left_out_and_named(self) -> None:
        dying = FakeProcess("dying", {"d": 1e6})
        dying.fails["time"] = "its process was ended by signal 11"
        gone = FakeProcess("gone", {"g": 1e6})
        gone.fails["open"] = "its process ended with code 1"
        made = driver_of(FakeProcess("pytorch", {"a": 1e6}), dying, gone, plan=Plan(1, 1, 0.001, 1.0))
        self.assertEqual([row.competitor for row in made.measure(CASE)], ["a"])
        self.assertEqual(made.left_out, {"d": dying.fails["time"], "gone": gone.fails["open"]})
        self.assertIn("stop", gone.orders)

    def test_cases_that_do_not_fit_into_memory_are_left_out(self) -> None:
        made = driver_of(FakeProcess("pytorch", {"a": 1e6}), plan=Plan(1, 1, 0.001, 1.0))
        with mock.patch.object(driver, "free_memory", lambda: 20_000):
            self.assertEqual(made.measure(CASE), [])
        self.assertIn("pytorch: dense of 1000", made.left_out)

    def test_distances_are_shares(self) -> None:
        self.assertAlmostEqual(distance([1.0, -2.2], [1.0, -2.0]), 0.2 / 3)
        self.assertEqual(distance([1.0], [1.0, 2.0]), float("inf"))
        self.assertEqual(distance([float("nan"), 1.0], [1.0, 1.0]), float("inf"))


#: A worker of a few lines, in the place of an environment's interpreter.
SCRIPT = """#!{python}
import json, os, sys
print(json.dumps({{"package": sys.argv[3], "version": os.environ["OMP_NUM_THREADS"]}}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "die":
        os.kill(os.getpid(), 9)
    print(json.dumps({{"error": "no"}} if order["do"] == "fail" else order), flush=True)
"""


class Workers(TestCase):
    def setUp(self) -> None:
        folder = Path(self.enter(tempfile.TemporaryDirectory()))
        (folder / "env/bin").mkdir(parents=True)
        python = folder / "env/bin/python"
        python.write_text(SCRIPT.format(python=sys.executable))
        python.chmod(0o755)
        with open(os.devnull, "wb") as log:
            self.process = Process(Source("module", "env"), folder, 3, log)
        self.addCleanup(self.process.stop)
        self.process.hello()

    def test_orders_are_answered(self) -> None:
        self.assertEqual((self.process.package, self.process.version), ("module", "3"))
        self.assertEqual(self.process.order("echo", case=1), {"do": "echo", "case": 1})

    def test_errors_and_deaths_are_told(self) -> None:
        with self.assertRaisesRegex(WorkerError, "no"):
            self.process.order("fail")
        with self.assertRaisesRegex(WorkerError, "signal 9"):
            self.process.order("die")

    def test_silence_ends(self) -> None:
        with mock.patch.object(process, "PATIENCE", 0.05):
            with self.assertRaisesRegex(WorkerError, "no answer"):
                self.process._answer()


class Libraries(unittest.TestCase):
    def test_what_raises_is_left_out_with_its_reason(self) -> None:
        opened = Opened()
        opened.add("good", lambda: Competitor("good", lambda: None, list))
        opened.add("bad", lambda: Competitor("bad", lambda: [][1], list))
        self.assertEqual([each.name for each in opened.competitors], ["good"])
        self.assertEqual(opened.left_out, {"bad": "IndexError: list index out of range"})

    def test_errors_are_told_in_one_line(self) -> None:
        self.assertEqual(
            sentence(ValueError("in user code:\n\n  file\n  no such thing\n")), "ValueError: no such thing"
        )
        self.assertEqual(sentence(ValueError("first\nsecond")), "ValueError: first")
        self.assertEqual(sentence(ValueError()), "ValueError")

    def test_every_source_has_a_module(self) -> None:
        for source in SOURCES:
            self.assertTrue((process.HERE / f"harness/libraries/{source.module}.py").exists(), source)


class Cases(unittest.TestCase):
    def test_gpt2_has_148_tensors_and_124_million_parameters(self) -> None:
        self.assertEqual((len(gpt2()), sum(gpt2())), (148, 124_439_808))

    def test_names_are_chosen_by_their_beginning(self) -> None:
        self.assertTrue(fits("dense", "dense-gaps") and fits("", "q8") and fits("bf16", "bf16-f32"))
        self.assertFalse(fits("dense", "densest") or fits("rows-adam", "rows-adagrad"))
        self.assertEqual({case.name for case in all_cases(False, "rows")}, {"rows-adam", "rows-adagrad"})
        self.assertEqual(all_cases(False, "nothing"), [])

    def test_every_case_is_explained_and_of_every_kind_there_is_one(self) -> None:
        for quick in (True, False):
            cases = all_cases(quick)
            self.assertEqual(len(cases), len(set(cases)))
            self.assertTrue(all(explain(case.name) for case in cases))
        self.assertEqual({case.kind for case in all_cases(False)}, set(NAMES))
        dense = [case.elements for case in all_cases(False, "dense") if not case.has_gaps]
        self.assertEqual((dense[0], dense[-1]), (4 << 10, 64 << 20))

    def test_what_comes_between_steps_is_explained(self) -> None:
        (after,) = [case for case in all_cases(True, "dense-after") if case.elements == 1 << 20]
        self.assertTrue(after.operation and after.has_gaps and after.kind == "dense")
        self.assertIn("operation of PyTorch", explain(after.name))
        self.assertIn("5 ms of other work", explain("dense-gaps"))
        self.assertFalse(after.small().has_gaps)

    def test_cases_survive_a_pipe(self) -> None:
        for case in all_cases(False):
            self.assertEqual(Case.from_json(json.loads(json.dumps(case.to_json()))), case)


def row(competitor: str, elements: int, ns: float, **others: Any) -> Row:
    return Row(
        **{**dict(case="dense", dtype="f32", threads=1, version="1"), **others},
        **dict(  # type: ignore[arg-type]
            elements=elements, competitor=competitor, ns_per_element=ns, min_ns_per_element=ns / 2
        ),
    )


class Reports(unittest.TestCase):
    def test_tables_have_a_line_for_each_competitor_and_a_star_for_the_fastest(self) -> None:
        rows = [row("ours", 1024, 0.5), row("theirs", 1024, 0.25), row("ours", 1 << 20, 1.0)]
        rows.append(row("ours", 16, 100.0, case="call", us_per_step=1.6))
        first, second = tables(rows).split("\n\n")
        self.assertEqual(first.splitlines()[0], "dense (f32), 1 thread, ns an element: AdamW over one tensor")
        lines = [line.split() for line in first.splitlines()[1:]]
        self.assertEqual(
            lines, [["elements", "1", "Ki", "1", "Mi"], ["ours", "0.500", "1.000*"], ["theirs", "0.250*", "-"]]
        )
        self.assertEqual(second.splitlines()[2].split(), ["ours", "1.6*"])

    def test_json_has_the_keys_that_readers_rely_on(self) -> None:
        header = Header("CPU", 2, ["L1d 32K"], "x86_64-linux", True, {"torch": "2"}, {"x": "why"})
        found = json.loads(json.dumps(to_json(header, [row("ours", 16, 1.0), row("ours", 16, 1.0, us_per_step=2.0)])))
        keys = "case dtype elements threads competitor version ns_per_element min_ns_per_element".split()
        self.assertEqual(list(found["rows"][0]), keys)
        self.assertEqual(list(found["rows"][1]), [*keys, "us_per_step"])
        self.assertEqual(found["header"]["cpu"], "CPU")

    def test_tables_can_be_printed_again_from_a_file(self) -> None:
        header = Header("CPU", 2, [], "x86_64-linux", True)
        rows = [row("ours", 16, 1.0)]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file, mock.patch("builtins.print") as printed:
            json.dump(to_json(header, rows), file)
            file.flush()
            main(["--tables", file.name])
        printed.assert_called_once_with(tables(rows))

    def test_a_run_prints_tables_and_writes_json(self) -> None:
        fake = mock.Mock(versions={"torch": "2"}, left_out={"slow": "why"})
        fake.measure.side_effect = lambda case: [row("ours", case.elements, 1.0, case=case.name)]
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch("builtins.print") as printed,
            mock.patch("harness.__main__.Driver", return_value=fake),
            mock.patch("harness.__main__.busy_cores", return_value=0.0),
        ):
            file = Path(folder, "run.json")
            arguments = f"--quick --case tail --threads 1 --no-install --environments {folder}/e --json {file}"
            main(arguments.split())
            found = json.loads(file.read_text())
        self.assertEqual([each["case"] for each in found["rows"]], ["tail"])
        self.assertEqual(found["header"]["left_out"], {"slow": "why"})
        self.assertIn("tail (f32), 1 thread", str(printed.call_args_list))
        fake.stop.assert_called_once_with()

    def test_only_what_the_libraries_need_is_installed(self) -> None:
        self.assertEqual(needed(["pytorch", "deepspeed"]), {"torch"})
        self.assertEqual(needed(["fbgemm"]), {"torch", "fbgemm"})
        self.assertEqual(needed(["bitsandbytes_cpu_fork"]), {"torch", "bitsandbytes-cpu-fork"})
        self.assertEqual(needed([source.module for source in SOURCES]), {*ENVIRONMENTS, *OVERLAYS})

    def test_cpus_are_told_apart(self) -> None:
        text = "processor\t: 0\nvendor_id\t: A\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
        self.assertEqual(cpu_name(text), "AMD EPYC (family 25, model 17)")
        self.assertEqual(cpu_name(""), "unknown CPU")

    def test_counts_have_units(self) -> None:
        self.assertEqual([count(16), count(4096), count(1000 << 10), count(3 << 20)], ["16", "4 Ki", "1000 Ki", "3 Mi"])


if __name__ == "__main__":
    unittest.main()
