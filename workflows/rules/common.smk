# The scales whose rules this run of Snakemake has, and the limits of this machine.
import sys
from pathlib import Path

import psutil
from snakemake.logging import logger

sys.path.insert(0, workflow.basedir)  # the code is this folder's, wherever Snakemake is called

from sdpg import slurm
from sdpg.config import from_snakemake
from sdpg.config.command import check_once
from sdpg.config.limits import no_matrix
from sdpg.experiment.gpus import executors, jobs_run_here, visible
from sdpg.experiment.workflow import DATABASE, Matrix, Scale
from sdpg.io import check_folder
from sdpg.provenance.one_workflow import lock_by_process, refuse
from sdpg.provenance.records import adopt_records, check_database, foreign_results
from sdpg.startup import own_code_in_jobs, without_job_rate

own_code_in_jobs(workflow.basedir)

LIGHT_MB = 1500  # of the jobs that read and write files
CAPTION = "../report/caption.rst"

try:
    if workflow.is_main_process:
        check_once(sys.argv)
    SOURCE, OVERRIDES = from_snakemake(config)
    MAIN = Scale(SOURCE, OVERRIDES)
    # `snakemake smoke` runs everything at scale smoke, whatever the scale of the other targets.
    SMOKE = MAIN if MAIN.name == "smoke" else Scale("smoke", {}, first=False)
    # The cells of the matrix beside the first scale take its overrides.
    CELLS = [Scale(cell, OVERRIDES, first=False) for cell in MAIN.other_cells]
    MATRIX = Matrix(MAIN, CELLS) if CELLS else None
    if "matrix" in sys.argv and not MATRIX:
        raise ValueError(no_matrix(MAIN.name))
    HERE = len(visible())
    if workflow.is_main_process and "slurm" in executors(sys.argv):
        slurm.need_commands()
except (ValueError, OSError) as error:
    refuse(str(error))

SCALES = list({scale.name: scale for scale in [MAIN, SMOKE, *CELLS]}.values())

# Jobs that together need more memory or GPUs than this machine has wait for each other; --resources mem_mb=... overrules. No job
# is cut down to what is here, as Snakemake would do: one that asks for more GPUs is refused when it starts, or runs elsewhere.
if jobs_run_here(sys.argv):
    LIMITS = {
        "mem_mb": psutil.virtual_memory().total // 2**20,
        "gpu": max(HERE, *(scale.gpus for scale in SCALES)),
    }
    for resource, limit in LIMITS.items():
        workflow.global_resources.setdefault(resource, limit)
    if MAIN.gpus > HERE and workflow.is_main_process:
        logger.warning(
            f"A job of scale {MAIN.name} takes {MAIN.gpus} GPUs (resources.gpus), and this machine has {HERE}."
        )
elif workflow.is_main_process and not any(word.startswith(("--cores", "-c")) for word in sys.argv):
    # `cores: all` of profiles/default counts the cores of this host, to which Snakemake would cut down its jobs' threads.
    workflow.resource_settings.cores = sys.maxsize
    workflow.global_resources["_cores"] = sys.maxsize

# In a job of Slurm what stands between it and `sdpg` waits for `sdpg` to save.
if not workflow.is_main_process and slurm.outlive_signals():
    shell.prefix(slurm.PREFIX)


ASKED = [
    MAIN,
    *([SMOKE] if "smoke" in sys.argv else []),
    *(CELLS if "matrix" in sys.argv else []),
]
# Jobs leave the database alone: on a cluster only the host that Snakemake was started on opens it.
if workflow.is_main_process:
    try:
        check_folder(Path(".snakemake"))
        check_database(DATABASE)
        for scale in ASKED:
            scale.check()
    except (ValueError, OSError) as error:
        refuse(str(error))
    lock_by_process()
    # Snakemake's records travel with the results (profiles/default), and are valid wherever these lie now.
    adopt_records(DATABASE, Path.cwd())
# Results of an earlier version are not taken for this one's, nor overwritten; --touch files them as made now.
if workflow.is_main_process and "--touch" not in sys.argv:
    for reason in filter(None, [foreign_results(DATABASE, Path(scale.root)) for scale in ASKED]):
        refuse(reason)

logger.info(MAIN.title)


# Each shell command ends in `2>&1 | tee -i {log}`: seen by whoever is watching and kept in the log; with -i, tee outlives a
# Ctrl-C long enough to take down the command's last words. Snakemake's shell fails if the command does (pipefail).
wildcard_constraints:
    method="|".join(
        sorted({re.escape(method) for scale in SCALES for method in scale.config.methods})
    ),
    seed=r"\d+",
    base=r"\d+",
