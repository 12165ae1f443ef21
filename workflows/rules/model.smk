OWN_MODEL = Path(CONFIG["model"].get("pretrained", "")) / "config.json"


rule base_model:
    input:
        [str(OWN_MODEL)] if "pretrained" in CONFIG["model"] and OWN_MODEL.is_file() else [],
    output:
        config=f"{RESULTS}/model/base{{base}}/config.json",
        report=f"{RESULTS}/model/base{{base}}.json",
    log:
        f"{RESULTS}/logs/base_model/base{{base}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/base_model/base{{base}}.tsv"
    conda:
        "../../environment.yml"
    threads: HEAVY["threads"]
    resources:
        mem_mb=HEAVY["mem_mb"],
        gpu=HEAVY["gpu"],
    params:
        *fingerprints(
            sources("make_base_model", without=[provenance.ENGINE_FILES["vllm"]], extra=[TEMPLATE])
        ),
        config=lambda wildcards: stable(base_config(CONFIG, int(wildcards.base))),
        run=script("make_base_model"),
    message:
        f"[{SCALE}] base model {{wildcards.base}} ({next(iter(CONFIG['model']))}), measured as student and as teacher"
    shell:
        "{params.run} --base {wildcards.base} 2>&1 | tee -i {log}"
