# The resolved config, the names that the rules share, and the limits of this machine.
import json
import shlex
import sys
from pathlib import Path

import psutil
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).resolve()))

from sdpg import provenance
from sdpg.config import (
    ConfigError,
    analysis_config,
    base_config,
    base_index,
    data_config,
    evaluation_config,
    from_snakemake,
    resolve,
    run_config,
)
from sdpg.config.decomposition import chain_methods
from sdpg.provenance import fingerprints, stage_sources

try:
    SOURCE, OVERRIDES = from_snakemake(config)
    CONFIG = resolve(SOURCE, OVERRIDES)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

SCALE = CONFIG["name"]
RESULTS = f"results/{SCALE}"
METHODS = list(CONFIG["methods"])
SEEDS = CONFIG["seeds"]
TASKS = list(CONFIG["data"]["evaluation"])
ANALYSIS = analysis_config(CONFIG)
BASES = ANALYSIS["bases"]  # numbers of the base models that the runs start from
EVALUATION_DATA = expand(f"{RESULTS}/data/eval/{{task}}.parquet", task=TASKS)
VALIDATION_DATA = expand(
    f"{RESULTS}/data/validation/{{name}}.parquet", name=CONFIG["data"]["validation"]
)
FORGETTING = data_config(CONFIG)["forgetting"]
BUNDLED = [f"sdpg/evaluation/tasks/{FORGETTING}.{kind}" for kind in ("yaml", "jsonl")]
FORGETTING_DATA = (  # made by the data rule, unless the task comes with the project
    [f"{RESULTS}/data/forgetting/{FORGETTING}.parquet"]
    if FORGETTING and not Path(workflow.basedir, BUNDLED[0]).is_file()
    else []
)
TEMPLATE = provenance.template_file(CONFIG["task"]["template"])
HEAVY = CONFIG["resources"]  # of the jobs that hold a model
LIGHT_MB = 1500  # of the jobs that read and write files

# Jobs that together need more memory than there is wait for each other; --resources mem_mb=... overrules.
if "mem_mb" not in workflow.global_resources:
    workflow.global_resources["mem_mb"] = psutil.virtual_memory().total // 2**20

# Snakemake's records travel with the results (profiles/default), and are valid wherever these lie now.
provenance.adopt_records(Path("results/.snakemake.db"), Path.cwd())


wildcard_constraints:
    method="|".join(map(re.escape, METHODS)),
    seed=r"\d+",
    base=r"\d+",


# Each shell command ends in `2>&1 | tee -i {log}`: seen by whoever is watching and kept in the log; with -i, tee outlives a Ctrl-C
# long enough to take down the script's last words. Snakemake's shell fails if the script does (pipefail).
def script(name):
    """The command line of a script of workflows/scripts, as a param. It is a function of `threads`, so that Snakemake
    does not take another path or option for another result: what a job depends on stands in its other params.
    """

    def command(wildcards, threads):
        overrides = [f"--set={key}={json.dumps(value)}" for key, value in OVERRIDES.items()]
        python = [sys.executable, "-u", "-m", f"workflows.scripts.{name}"]
        return shlex.join([*python, "--scale", SOURCE, *overrides, "--threads", str(threads)])

    return command


def stable(value):
    """One string for equal values: what Snakemake compares with the last run's."""
    return json.dumps(value, sort_keys=True)


def fixed(value):
    """What every job of a rule depends on. A function, because Snakemake would take braces in a string, such as those
    of a wording "What is {expression}?", for wildcards.
    """
    return lambda wildcards: stable(value)


def pick(*keys):
    """The named blocks of the config."""
    return fixed({key: CONFIG[key] for key in keys})


def sources(name, **kwargs):
    """A script and the project files that it imports: see sdpg/provenance.py."""
    return stage_sources(f"workflows/scripts/{name}.py", **kwargs)


def other_engines(block):
    """The files of the rollout engines that a block of the config does not use."""
    return {
        file for name, file in provenance.ENGINE_FILES.items() if name != CONFIG[block]["engine"]
    }


def method_sources(shared):
    """The hashes of a run's method: its file, and what that imports beyond the `shared` files."""

    def of(wildcards):
        algorithm = run_config(CONFIG, wildcards.method, 0)["algorithm"]["algorithm"]
        return fingerprints(stage_sources(provenance.algorithm_files()[algorithm], without=shared))

    return of


def module_sources(package, kind, shared):
    """The hashes of one figure or table: its own module, and what that imports beyond the `shared` files."""
    return lambda wildcards: fingerprints(
        stage_sources(f"{package}/{wildcards[kind]}.py", without=shared)
    )


def run_files(pattern):
    """`pattern` with its {method} and {seed}, for every run of this config."""
    return expand(f"{RESULTS}/{pattern}", method=METHODS, seed=SEEDS)
