# The whole benchmark as one DAG. `snakemake -n` shows what would run and why; README.md shows the rest.
#
#   snakemake [reproduce-all | train | evaluate | figures | tables | claims | report | smoke | matrix | any artefact or file]
#             [--config scale=cpu|smoke|lm|...|FILE.yaml  seeds=[0,1]  train='{steps: 20}'  set="train.lr=1e-4 train.steps=20"]
#
# profiles/default is used by itself: all cores, all GPUs, this machine's memory.


include: "workflows/rules/common.smk"
include: "workflows/rules/solutions.smk"
include: "workflows/rules/data.smk"
include: "workflows/rules/model.smk"
include: "workflows/rules/train.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/steps.smk"


report: "workflows/report/workflow.rst"


onstart:
    without_job_rate(workflow.scheduler)


rule reproduce_all:
    name:
        "reproduce-all"
    default_target: True
    input:
        MAIN.finished,
    message:
        MAIN.ready


rule smoke:
    input:
        SMOKE.finished,
    message:
        SMOKE.ready


rule figures:
    input:
        MAIN.made("figures/"),
    message:
        f"[{MAIN.name}] every figure is drawn"


rule tables:
    input:
        MAIN.made("tables/"),
    message:
        f"[{MAIN.name}] every table is made"


if MATRIX:

    rule matrix:
        input:
            [cell.made("report") for cell in MATRIX.cells],
            [step.writes for step in MATRIX.steps],
        message:
            f"[{MAIN.name}] every cell of the matrix is made: {MAIN.root}-matrix/matrix.md"
