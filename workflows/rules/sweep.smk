# A sweep trains, and chooses by the validation sets. It has no rule that reads an evaluation problem.
rule tune:
    input:
        run_files("runs/{method}/seed{seed}/metrics.jsonl"),
    output:
        settings=f"{RESULTS}/sweep/tuned.yaml",
        evidence=f"{RESULTS}/sweep/tuned.csv",
    log:
        f"{RESULTS}/logs/tune.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("tune")),
        config=pick("sweep", "seeds", "methods"),
        run=script("tune"),
    message:
        f"[{SCALE}] score of every trial, and what each method gets"
    shell:
        "{params.run} 2>&1 | tee -i {log}"


rule sensitivity:
    input:
        rules.tune.output.evidence,
    output:
        pdf=f"{RESULTS}/figures/sensitivity.pdf",
        png=report(
            f"{RESULTS}/figures/sensitivity.png",
            caption="../report/picture.rst",
            category="Figures",
            labels={"figure": "sensitivity"},
        ),
        csv=f"{RESULTS}/figures/sensitivity.csv",
    log:
        f"{RESULTS}/logs/figures/sensitivity.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/sensitivity.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints([*sources("plot"), "sdpg/artefacts/figures/sensitivity.py"]),
        config=pick("sweep"),
        caption=lambda wildcards: provenance.literal("sdpg/artefacts/figures/sensitivity.py", "CAPTION"),
        run=script("plot"),
    message:
        f"[{SCALE}] figure sensitivity"
    shell:
        "{params.run} sensitivity 2>&1 | tee -i {log}"
