"""The rule `solutions` in the workflow: planned where it is asked for, before the problems, and run anew for other content."""

import json

import pytest

from sdpg.tasks.data import load_problems
from tests.solutions.scripted import asked_of as asked
from tests.solutions.scripted import endpoint, rows, solved, write_scale
from tests.workflow.conftest import copy_project


@pytest.mark.slow
@pytest.mark.long
def test_the_workflow_writes_solutions_first_and_keeps_what_a_failed_job_was_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-very-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from tests.solutions.scripted import fault

    with endpoint(lambda number, question: solved(question) if number < 2 else fault(401)) as server:
        path = write_scale(tmp_path, asked(server))
        project = copy_project(tmp_path / "project")
        root = project.folder / "results" / "mine"
        plan = project.planned("data", "--config", f"scale={path}")
        assert plan == {
            "worked solutions for problems that have none (endpoint)",
            "problems to train on, and to evaluate on: test",
        }
        assert "worked" not in "".join(project.planned("data", "--config", f"scale={path}", "methods=[grpo]"))
        output = project.snakemake("data", "--config", f"scale={path}", ok=False)
        assert "2 answers are kept in results/mine/solutions/journal.jsonl" in output
        server.script = lambda number, question: solved(question)
        output += project.snakemake("data", "--config", f"scale={path}")
        assert [server.asked.count(row["question"]) for row in rows(4)] == [1, 1, 2, 1]
        problems = load_problems(root / "data" / "train.parquet")
        assert len(problems) == 4 and all(problem.solution.startswith("Add ") for problem in problems)
        assert json.loads((root / "data" / "report.json").read_text())["train"]["solutions"]["written"] == 4
        for file in (tmp_path / "project" / "results").rglob("*"):
            assert file.is_dir() or b"sk-very" not in file.read_bytes()
        assert "sk-very" not in output
        # a limit of rate is no reason to run again; other settings of the writer are
        path.write_text(path.read_text().replace('"concurrency": 1', '"concurrency": 2'))
        assert project.planned("data", "--config", f"scale={path}") == set()
        path.write_text(path.read_text().replace('"tries": 3', '"tries": 4'))
        assert project.planned("data", "--config", f"scale={path}") == plan
