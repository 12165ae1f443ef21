# A user's own files are inputs: their content decides, not their date.
OWN_FILES = [
    source["path"]
    for source in (
        CONFIG["data"]["train"],
        *CONFIG["data"]["validation"].values(),
        *CONFIG["data"]["evaluation"].values(),
    )
    if Path(source.get("path", "")).is_file()
]


rule data:
    input:
        OWN_FILES,
    output:
        train=f"{RESULTS}/data/train.parquet",
        evaluation=EVALUATION_DATA,
        validation=VALIDATION_DATA,
        forgetting=FORGETTING_DATA,
        report=f"{RESULTS}/data/disjoint.json",
    log:
        f"{RESULTS}/logs/data.log",
    benchmark:
        f"{RESULTS}/benchmarks/data.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("make_data", extra=[TEMPLATE])),
        config=fixed(data_config(CONFIG)),
        run=script("make_data"),
    message:
        f"[{SCALE}] problems to train on, and to evaluate on: {', '.join(TASKS)}"
    shell:
        "{params.run} 2>&1 | tee -i {log}"
