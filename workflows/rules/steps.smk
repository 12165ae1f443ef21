# A rule of every artefact that a scale has. What it reads, writes and depends on, when it is planned and its caption stand in
# its own file in sdpg/artefacts; `snakemake NAME` makes one (figures_cost, tables_main, claims, report, ...).
STEPS = [(scale.command("make"), step) for scale in SCALES for step in scale.steps]
STEPS += [(MAIN.command("make"), step) for step in (MATRIX.steps if MATRIX else [])]

for run, step in STEPS:

    rule:
        name:
            step.rule
        input:
            step.reads,
        output:
            [
                (
                    report(
                        path, caption=CAPTION, category=step.category, labels={"name": step.name}
                    )
                    if path == step.shown
                    else path
                )
                for path in step.writes
            ],
        log:
            step.log,
        benchmark:
            step.benchmark
        localrule: True
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=LIGHT_MB,
            gpu=0,
        params:
            *step.code,
            config=step.part,
            caption=step.caption,
            run=run,
            artefact=step.name,
        message:
            step.message
        shell:
            "{params.run} {params.artefact} 2>&1 | tee -i {log}"
