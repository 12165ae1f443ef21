LM_EVAL = CONFIG["evaluation"]["lm_eval"] is not None
EVALUATION_EXTRA = [TEMPLATE, *BUNDLED]


# One engine per run: it sweeps over the checkpoints, and lm-eval then uses the last one's weights in it.
rule evaluate_run:
    input:
        problems=EVALUATION_DATA + FORGETTING_DATA,
        checkpoints=rules.train_run.output.checkpoints,
    output:
        sets=expand(f"{RESULTS}/eval/{{{{method}}}}/seed{{{{seed}}}}/{{task}}.parquet", task=TASKS),
        lm_eval=f"{RESULTS}/eval/{{method}}/seed{{seed}}/lm_eval.json" if LM_EVAL else [],
    log:
        f"{RESULTS}/logs/evaluate/{{method}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{method}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: HEAVY["threads"]
    resources:
        mem_mb=HEAVY["mem_mb"],
        gpu=HEAVY["gpu"],
    params:
        *fingerprints(
            sources("evaluate", without=other_engines("evaluation"), extra=EVALUATION_EXTRA)
        ),
        config=fixed(evaluation_config(CONFIG)),
        run=script("evaluate"),
        lm_eval="--lm-eval" if LM_EVAL else "",
    message:
        f"[{SCALE}] evaluate {{wildcards.method}}, seed {{wildcards.seed}}: every checkpoint on {', '.join(TASKS)}"
        f"{', and lm-eval on the last' if LM_EVAL else ''}"
    shell:
        "{params.run} --method {wildcards.method} --seed {wildcards.seed} {params.lm_eval} 2>&1 | tee -i {log}"


# What the base model could do before training, to tell what was forgotten.
rule lm_evaluate_base:
    input:
        problems=EVALUATION_DATA + FORGETTING_DATA,
        base=rules.base_model.output.report,
    output:
        f"{RESULTS}/eval/base{{base}}/lm_eval.json",
    log:
        f"{RESULTS}/logs/evaluate/base{{base}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/base{{base}}.tsv"
    conda:
        "../../environment.yml"
    threads: HEAVY["threads"]
    resources:
        mem_mb=HEAVY["mem_mb"],
        gpu=HEAVY["gpu"],
    params:
        *fingerprints(sources("lm_evaluate", extra=EVALUATION_EXTRA)),
        config=fixed(evaluation_config(CONFIG)),
        run=script("lm_evaluate"),
    message:
        f"[{SCALE}] lm-eval on base model {{wildcards.base}}"
    shell:
        "{params.run} --base {wildcards.base} 2>&1 | tee -i {log}"


BASE_LM_EVAL = expand(f"{RESULTS}/eval/base{{base}}/lm_eval.json", base=BASES) if LM_EVAL else []


rule evaluate:
    input:
        [run_files(f"eval/{{method}}/seed{{seed}}/{task}.parquet") for task in TASKS],
        run_files("eval/{method}/seed{seed}/lm_eval.json") if LM_EVAL else [],
        BASE_LM_EVAL,
    message:
        f"[{SCALE}] every run is evaluated"
