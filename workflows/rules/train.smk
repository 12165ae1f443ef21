# The trainer works in results/<scale>/.work and moves its files here when it has finished: Snakemake deletes the outputs
# of a job that failed, and a killed run goes on from its last checkpoint. A run that diverges has finished, too.
for scale in SCALES:

    rule:
        name:
            scale.rule("train_run")
        input:
            problems=f"{scale.root}/data/train.parquet",
            validation=scale.sets("validation"),
            base=scale.base,
        output:
            record=f"{scale.root}/runs/{{method}}/seed{{seed}}/run.json",
            metrics=f"{scale.root}/runs/{{method}}/seed{{seed}}/metrics.jsonl",
            checkpoints=f"{scale.root}/runs/{{method}}/seed{{seed}}/checkpoints/checkpoints.json",
        log:
            scale.log("train/{method}-seed{seed}"),
        benchmark:
            scale.benchmark("train/{method}-seed{seed}")
        conda:
            "../../environment.yml"
        threads: scale.config.resources.threads
        resources:
            **scale.takes("train"),
        params:
            *scale.code("train"),
            method=scale.method_code,
            config=scale.part("train"),
            run=scale.command("train"),
        message:
            f"[{scale.name}] train {{wildcards.method}}, seed {{wildcards.seed}}: {scale.config.train.steps} steps"
        shell:
            "{params.run} --method {wildcards.method} --seed {wildcards.seed} 2>&1 | tee -i {log}"


rule train:
    input:
        MAIN.files.checkpoints,
    message:
        f"[{MAIN.name}] every run is trained"
