# The trainer works in results/<scale>/.work and moves its files here when it has finished: Snakemake deletes the outputs
# of a job that failed, and a killed run goes on from its last checkpoint.
TRAINING = CONFIG["train"]
# What every run depends on: no method's file, and only the engine in use.
TRAIN_SOURCES = sources(
    "train",
    without={*provenance.algorithm_files().values(), *other_engines("train")},
    extra=[TEMPLATE],
)


rule train_run:
    input:
        problems=rules.data.output.train,
        validation=VALIDATION_DATA,
        base=lambda wildcards: f"{RESULTS}/model/base{base_index(CONFIG, int(wildcards.seed))}.json",
    output:
        record=f"{RESULTS}/runs/{{method}}/seed{{seed}}/run.json",
        metrics=f"{RESULTS}/runs/{{method}}/seed{{seed}}/metrics.jsonl",
        checkpoints=f"{RESULTS}/runs/{{method}}/seed{{seed}}/checkpoints/checkpoints.json",
    log:
        f"{RESULTS}/logs/train/{{method}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{method}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: HEAVY["threads"]
    resources:
        mem_mb=HEAVY["mem_mb"],
        gpu=HEAVY["gpu"],
    params:
        *fingerprints(TRAIN_SOURCES),
        method=method_sources(TRAIN_SOURCES),
        config=lambda wildcards: stable(run_config(CONFIG, wildcards.method, int(wildcards.seed))),
        run=script("train"),
    message:
        f"[{SCALE}] train {{wildcards.method}}, seed {{wildcards.seed}}: {TRAINING['steps']} steps"
    shell:
        "{params.run} --method {wildcards.method} --seed {wildcards.seed} 2>&1 | tee -i {log}"


rule train:
    input:
        run_files("runs/{method}/seed{seed}/checkpoints/checkpoints.json"),
    message:
        f"[{SCALE}] every run is trained"
