rule scores:
    input:
        rules.evaluate.input,
    output:
        scores=f"{RESULTS}/scores.csv",
        intervals=f"{RESULTS}/intervals.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
    log:
        f"{RESULTS}/logs/scores.log",
    benchmark:
        f"{RESULTS}/benchmarks/scores.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("make_scores")),
        config=fixed(ANALYSIS),
        run=script("make_scores"),
    message:
        f"[{SCALE}] scores.csv, with intervals and paired comparisons"
    shell:
        "{params.run} 2>&1 | tee -i {log}"
