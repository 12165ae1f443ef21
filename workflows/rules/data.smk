# Problems to train, to validate and to evaluate on. The content of a user's own files decides, not their date.
# `localrule`: on a cluster, too, where Snakemake itself runs, which as a rule has the network that compute nodes lack.
for scale in SCALES:

    rule:
        name:
            scale.rule("data")
        input:
            ancient(scale.own_files()),
            scale.solutions,
        output:
            train=f"{scale.root}/data/train.parquet",
            evaluation=scale.sets("evaluation"),
            validation=scale.sets("validation"),
            forgetting=scale.forgetting,
            report=scale.files.data_report,
        log:
            scale.log("data"),
        benchmark:
            scale.benchmark("data")
        localrule: True
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=LIGHT_MB,
            gpu=0,
        params:
            *scale.code("data"),
            *scale.own_content("data"),
            config=scale.part("data"),
            run=scale.command("data"),
        message:
            f"[{scale.name}] problems to train on, and to evaluate on: {', '.join(scale.config.data.evaluation)}"
        shell:
            "{params.run} 2>&1 | tee -i {log}"
