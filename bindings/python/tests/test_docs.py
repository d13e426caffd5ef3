"""The programs in the README and the pages run as they stand."""

from __future__ import annotations

import pathlib
import re

import pytest

pytest.importorskip("torch")

PLACE = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/moving.md"])
def test_the_programs_of_a_page_run(page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (PLACE / page).read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(programs) >= 4
    names: dict[str, object] = {}
    for number, program in enumerate(programs):
        exec(compile(program, f"{page}, program {number + 1}", "exec"), names)


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in [PLACE / "README.md", *PLACE.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
