# The base models that the runs start from: made here, or taken from a folder, a package or the hub.
for scale in SCALES:

    rule:
        name:
            scale.rule("base_model")
        input:
            ancient(scale.own_model()),
        output:
            config=f"{scale.root}/model/base{{base}}/config.json",
            report=f"{scale.root}/model/base{{base}}.json",
        log:
            scale.log("base_model/base{base}"),
        benchmark:
            scale.benchmark("base_model/base{base}")
        conda:
            "../../environment.yml"
        threads: scale.threads_of_one
        resources:
            **scale.takes("base_model"),
        params:
            *scale.code("base_model"),
            *scale.own_content("base_model"),
            config=scale.part("base_model"),
            run=scale.command("base-model"),
        message:
            f"[{scale.name}] base model {{wildcards.base}} ({scale.config.model.kind}), measured as student and as teacher"
        shell:
            "{params.run} --base {wildcards.base} 2>&1 | tee -i {log}"
