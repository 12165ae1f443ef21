"""Imports point one way; an arrow the wrong way fails here. `sdpg/experiment` and the command line alone see everything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {"sdpg.types", "sdpg.io", "sdpg.markdown", "sdpg.locks", "sdpg.progress", "sdpg.redact", "sdpg.slurm", "sdpg.startup"}
SETTINGS = "sdpg.config.settings"  # typed values; the rest of sdpg.config also knows the methods
# package -> the project's modules that it may import (a prefix allows what is below it)
ALLOWED = {
    "sdpg/algorithms": {"sdpg.algorithms", *LEAVES},
    "baselines": {"baselines", "sdpg.algorithms", *LEAVES},
    "sdpg/rollout": {"sdpg.rollout", *LEAVES},
    "sdpg/tasks": {"sdpg.tasks", "sdpg.config.reading", SETTINGS, *LEAVES},
    "sdpg/config": {"sdpg.config", "baselines", "sdpg.tasks.sources", "sdpg.tasks.verifiers", "sdpg.rollout.engines", *LEAVES},
    "sdpg/core": {
        "sdpg.core",
        "sdpg.algorithms",
        "sdpg.rollout.engine",
        "sdpg.rollout.context",
        "sdpg.provenance.git",
        SETTINGS,
        "sdpg.config.diff",  # of what a saved state was made with
        "sdpg.config.parts",
        *LEAVES,
    },
    "sdpg/solutions": {"sdpg.solutions", "sdpg.tasks", "sdpg.rollout", SETTINGS, "sdpg.config.solutions", *LEAVES},
    "sdpg/evaluation": {"sdpg.evaluation", "sdpg.tasks", "sdpg.rollout", SETTINGS, *LEAVES},
    "sdpg/analysis": {"sdpg.analysis", "sdpg.evaluation.estimators", "sdpg.config", *LEAVES},
    "sdpg/artefacts": {
        "sdpg.artefacts",
        "sdpg.analysis",
        "sdpg.config",
        "sdpg.algorithms.schedules",
        "sdpg.evaluation.estimators",
        "sdpg.provenance",
        *LEAVES,
    },
    "sdpg/sharing": {
        "sdpg.sharing",
        "sdpg.analysis",
        "sdpg.artefacts.declare",
        "sdpg.artefacts.manifest",
        "sdpg.config",
        "sdpg.evaluation.checkpoints",
        "sdpg.provenance",
        "sdpg.tasks.pinned",  # whose data they are
        *LEAVES,
    },
    "sdpg/provenance": {"sdpg.provenance", "sdpg.config", "sdpg.artefacts", *LEAVES},
}


def project_imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(file.relative_to(ROOT).with_suffix("").parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [package, node.module]))
            inside = (ROOT / module.replace(".", "/")).is_dir()
            found |= {f"{module}.{alias.name}" for alias in node.names} if inside else {module}
    return {name for name in found if name.split(".")[0] in ("sdpg", "baselines", "workflows")}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may_know(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in project_imports(file):
            allowed = any(name == a or name.startswith(a + ".") for a in ALLOWED[package])
            assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_no_two_files_import_each_other_in_a_circle():
    modules = {}
    for file in [*(ROOT / "sdpg").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = project_imports(file)

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        for other in modules.get(name, ()):
            target = other if other in modules else other.rpartition(".")[0]
            if target in modules and target != name and not name.startswith(target + "."):
                visit(target, [*path, name])

    for name in modules:
        visit(name, [])


@pytest.mark.parametrize("module", ["sdpg.tasks.verifiers", "sdpg.tasks.sources", "sdpg.rollout.engines", "sdpg.config"])
def test_what_every_command_imports_is_quick_to_import(module):
    heavy = {"torch", "pandas", "transformers", "reasoning_gym", "vllm", "datasets", "sympy", "numpy"}
    code = f"import sys, {module}\nfrom sdpg.rollout import engines\nengines.label('vllm'), engines.lm_eval_engine('vllm')\n"
    code += f"print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "sdpg.analysis",
        "sdpg.artefacts.figures",
        "sdpg.config",
        "sdpg.config.diff",
        "sdpg.cli",
        "sdpg.evaluation.estimators",
        "sdpg.sharing",
    ],
)
def test_no_torch_where_only_files_are_read(module):
    code = (
        f"import importlib, pkgutil, sys\nm = importlib.import_module('{module}')\n"
        "for x in pkgutil.walk_packages(getattr(m, '__path__', []), m.__name__ + '.'): importlib.import_module(x.name)\n"
        "heavy = {'torch', 'transformers', 'vllm', 'lm_eval'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
