# What the scores say: the seeds that a difference takes, and a verdict for each of the paper's claims.
CLAIMS = "config/claims.yaml"


rule power:
    input:
        [run_files(f"eval/{{method}}/seed{{seed}}/{task}.parquet") for task in TASKS],
    output:
        f"{RESULTS}/power.csv",
    log:
        f"{RESULTS}/logs/power.log",
    benchmark:
        f"{RESULTS}/benchmarks/power.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("make_power")),
        config=fixed(ANALYSIS),
        run=script("make_power"),
    message:
        f"[{SCALE}] power.csv: the seeds that telling two methods apart takes"
    shell:
        "{params.run} 2>&1 | tee -i {log}"


rule claims:
    input:
        rules.power.input,
        run_files("runs/{method}/seed{seed}/metrics.jsonl"),
        "results/published/curves.csv",
    output:
        json=f"{RESULTS}/claims.json",
        md=report(
            f"{RESULTS}/claims.md",
            caption="../report/claims.rst",
            category="Claims",
        ),
    log:
        f"{RESULTS}/logs/claims.log",
    benchmark:
        f"{RESULTS}/benchmarks/claims.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(
            sources("make_claims", extra=[CLAIMS, "workflows/schemas/claims.schema.json"])
        ),
        config=fixed({**ANALYSIS, "family": CONFIG["family"]}),
        run=script("make_claims"),
    message:
        f"[{SCALE}] claims.json and claims.md: a verdict for each claim of the paper"
    shell:
        "{params.run} 2>&1 | tee -i {log}"
