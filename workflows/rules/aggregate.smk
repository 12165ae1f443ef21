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


RECORDS = run_files("runs/{method}/seed{seed}/run.json")
METRICS = run_files("runs/{method}/seed{seed}/metrics.jsonl")
SCORES = list(rules.scores.output)

# What lies between scores and figures: its module in sdpg/analysis, and the files that it reads. The decomposition is planned
# where the config has at least two methods of its chain.
SUMMARIES = {"stability": SCORES + METRICS, "cost": SCORES + METRICS}
IN_CHAIN = [method for method in chain_methods() if method in METHODS]
if len(IN_CHAIN) > 1:
    evaluated = expand(
        f"{RESULTS}/eval/{{method}}/seed{{seed}}/{{task}}.parquet",
        method=IN_CHAIN,
        seed=SEEDS,
        task=TASKS,
    )
    SUMMARIES["decomposition"] = evaluated + RECORDS + ["results/published/curves.csv"]
SUMMARY_SOURCES = sources("summarise", without={f"sdpg/artefacts/{name}.py" for name in SUMMARIES})
CHAIN = ["config/decomposition.yaml", "workflows/schemas/decomposition.schema.json"]


rule summary:
    input:
        lambda wildcards: SUMMARIES[wildcards.summary],
    output:
        f"{RESULTS}/{{summary}}.csv",
    log:
        f"{RESULTS}/logs/summaries/{{summary}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/summaries/{{summary}}.tsv"
    wildcard_constraints:
        summary="|".join(SUMMARIES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(SUMMARY_SOURCES),
        module=module_sources("sdpg/artefacts", "summary", SUMMARY_SOURCES),
        chain=lambda wildcards: (
            fingerprints(CHAIN) if wildcards.summary == "decomposition" else []
        ),
        config=fixed(ANALYSIS),
        run=script("summarise"),
    message:
        f"[{SCALE}] {{wildcards.summary}}.csv"
    shell:
        "{params.run} {wildcards.summary} 2>&1 | tee -i {log}"
