# The whole benchmark as one DAG. `snakemake -n` shows what would run and why; README.md shows the rest.
#
#   snakemake [reproduce-all | train | evaluate | figures | tables | claims | report | smoke | matrix]
#             [--config scale=cpu|smoke|lm|...|FILE.yaml  seeds=[0,1]  train='{steps: 20}'  set="train.lr=1e-4 train.steps=20"]
#
# profiles/default is used by itself: all cores, one GPU, this machine's memory.


from snakemake.logging import logger

BANNER = config.get("banner", True)  # the module below has no banner of its own


include: "workflows/rules/common.smk"
include: "workflows/rules/data.smk"
include: "workflows/rules/model.smk"
include: "workflows/rules/train.smk"


report: "workflows/report/workflow.rst"


if CONFIG["sweep"]:

    include: "workflows/rules/sweep.smk"

    EVERYTHING = [*rules.tune.output, *rules.sensitivity.output]
    READY = f"[{SCALE}] everything is up to date; what was chosen: {RESULTS}/sweep/tuned.yaml"

else:

    include: "workflows/rules/evaluate.smk"
    include: "workflows/rules/aggregate.smk"
    include: "workflows/rules/claims.smk"
    include: "workflows/rules/figures.smk"

    TARGETS = [rules.train, rules.evaluate, rules.figures, rules.tables]
    EVERYTHING = [str(file) for target in TARGETS for file in target.input]
    EVERYTHING += [f"{RESULTS}/{file}" for file in ("claims.json", "claims.md", "report.html")]
    READY = f"[{SCALE}] everything is up to date; all of it on one page: {RESULTS}/report.html"


include: "workflows/rules/manifest.smk"


FINISHED = [*EVERYTHING, f"{RESULTS}/manifest.json"]


if SCALE == "smoke":

    rule smoke:
        input:
            FINISHED,
        message:
            READY

elif BANNER:

    # `snakemake smoke` runs everything at scale smoke, whatever the scale of the other targets.
    module smoke_scale:
        snakefile:
            "Snakefile"
        config:
            {"scale": "smoke", "banner": False}

    use rule * from smoke_scale exclude smoke as smoke_*

    use rule smoke from smoke_scale


# The cells of the matrix beside `cpu`, with the same overrides: `snakemake matrix`.
if SCALE == "cpu" and BANNER:

    module clean_scale:
        snakefile:
            "Snakefile"
        config:
            config | {"scale": "cpu-clean", "banner": False}

    use rule * from clean_scale as clean_*

    module stressed_scale:
        snakefile:
            "Snakefile"
        config:
            config | {"scale": "cpu-stressed", "banner": False}

    use rule * from stressed_scale as stressed_*

    module clean_stressed_scale:
        snakefile:
            "Snakefile"
        config:
            config | {"scale": "cpu-clean-stressed", "banner": False}

    use rule * from clean_stressed_scale as clean_stressed_*

    include: "workflows/rules/matrix.smk"


rule reproduce_all:
    name:
        "reproduce-all"
    default_target: True
    input:
        FINISHED,
    message:
        READY


if BANNER:
    logger.info(
        f"\nScale {SCALE}: {', '.join(METHODS)}; seeds {', '.join(map(str, SEEDS))}; "
        f"{len(METHODS) * len(SEEDS)} training runs of {CONFIG['train']['steps']} steps; results in {RESULTS}/\n"
    )
