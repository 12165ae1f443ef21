# Worked solutions for the training problems that have none, where the scale says who writes them and a teacher reads them.
# Every answer is kept in journal.jsonl, which is no output: Snakemake deletes those of a job that failed. An endpoint is asked
# from where Snakemake itself runs, which as a rule has the network; a local model is a job of one engine on one GPU.
WRITTEN = [scale for scale in SCALES if scale.solutions]

for scale in WRITTEN:

    rule:
        name:
            scale.rule("solutions")
        input:
            ancient(scale.own_files()),
        output:
            scale.solutions,
            f"{scale.root}/solutions/report.json",
        log:
            scale.log("solutions"),
        benchmark:
            scale.benchmark("solutions")
        localrule: scale.config.data.solutions.kind != "local"
        conda:
            "../../environment.yml"
        threads: scale.threads_of_one
        resources:
            **(
                scale.takes("evaluate", one=True)
                if scale.config.data.solutions.kind == "local"
                else {"mem_mb": LIGHT_MB, "gpu": 0}
            ),
        params:
            *scale.code("solutions"),
            *scale.own_content("solutions"),
            config=scale.part("solutions"),
            run=scale.command("solutions"),
        message:
            f"[{scale.name}] worked solutions for problems that have none ({scale.config.data.solutions.kind})"
        shell:
            "{params.run} 2>&1 | tee -i {log}"
