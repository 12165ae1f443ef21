# A job evaluates a run, on all GPUs of its node: an engine on each, and parts dealt over them. What is complete lies in
# results/<scale>/.work/eval, and a job that was ended goes on from it. lm-eval on the last checkpoint is part of it, in the same
# engine, unless it is for some seeds alone, or responses were sampled in the training job: then it has jobs of its own, and what
# is asked of it changes nothing else. A sweep trains, and chooses by the validation sets: it has no rule that reads an evaluation
# problem.
EVALUATED = [scale for scale in SCALES if scale.config.sweep is None]

for scale in EVALUATED:

    rule:
        name:
            scale.rule("evaluate_run")
        input:
            problems=scale.sets("evaluation") + (scale.forgetting if scale.lm_eval else []),
            checkpoints=f"{scale.root}/runs/{{method}}/seed{{seed}}/checkpoints/checkpoints.json",
        output:
            sets=[
                f"{scale.root}/eval/{{method}}/seed{{seed}}/{task}.parquet"
                for task in scale.config.data.evaluation
            ],
            lm_eval=(
                [f"{scale.root}/eval/{{method}}/seed{{seed}}/lm_eval.json"]
                if scale.lm_eval
                else []
            ),
        log:
            scale.log("evaluate/{method}-seed{seed}"),
        benchmark:
            scale.benchmark("evaluate/{method}-seed{seed}")
        conda:
            "../../environment.yml"
        threads: scale.config.resources.threads
        resources:
            **scale.takes("evaluate"),
        params:
            *scale.code("evaluate"),
            config=scale.part("evaluate"),
            run=scale.command("evaluate"),
            lm_eval="--lm-eval" if scale.lm_eval else "",
        message:
            f"[{scale.name}] evaluate {{wildcards.method}}, seed {{wildcards.seed}}: every checkpoint on "
            f"{', '.join(scale.config.data.evaluation)}{', and lm-eval on the last' if scale.lm_eval else ''}"
        shell:
            "{params.run} --method {wildcards.method} --seed {wildcards.seed} {params.lm_eval} 2>&1 | tee -i {log}"

    if scale.config.lm_eval_apart:

        rule:
            name:
                scale.rule("lm_evaluate_run")
            input:
                problems=scale.sets("evaluation") + scale.forgetting,
                checkpoints=f"{scale.root}/runs/{{method}}/seed{{seed}}/checkpoints/checkpoints.json",
            output:
                f"{scale.root}/eval/{{method}}/seed{{seed}}/lm_eval.json",
            log:
                scale.log("lm_eval/{method}-seed{seed}"),
            benchmark:
                scale.benchmark("lm_eval/{method}-seed{seed}")
            wildcard_constraints:
                seed="|".join(map(str, scale.config.lm_eval_seeds)),
            conda:
                "../../environment.yml"
            threads: scale.threads_of_one
            resources:
                **scale.takes("evaluate", one=True),
            params:
                *scale.code("lm_eval"),
                config=scale.part("lm_eval"),
                run=scale.command("lm-eval"),
            message:
                f"[{scale.name}] lm-eval on the last checkpoint of {{wildcards.method}}, seed {{wildcards.seed}}"
            shell:
                "{params.run} --method {wildcards.method} --seed {wildcards.seed} 2>&1 | tee -i {log}"

    # What the base model could do before training, to tell what was forgotten.
    rule:
        name:
            scale.rule("lm_evaluate_base")
        input:
            problems=scale.sets("evaluation") + scale.forgetting,
            base=f"{scale.root}/model/base{{base}}.json",
        output:
            f"{scale.root}/eval/base{{base}}/lm_eval.json",
        log:
            scale.log("evaluate/base{base}"),
        benchmark:
            scale.benchmark("evaluate/base{base}")
        conda:
            "../../environment.yml"
        threads: scale.threads_of_one
        resources:
            **scale.takes("evaluate", one=True),
        params:
            *scale.code("lm_eval" if scale.config.lm_eval_apart else "evaluate"),
            config=scale.part("lm_eval" if scale.config.lm_eval_apart else "evaluate"),
            run=scale.command("lm-eval"),
        message:
            f"[{scale.name}] lm-eval on base model {{wildcards.base}}"
        shell:
            "{params.run} --base {wildcards.base} 2>&1 | tee -i {log}"


if MAIN in EVALUATED:

    rule evaluate:
        input:
            MAIN.files.evaluations,
            MAIN.files.lm_eval,
            MAIN.files.base_lm_eval,
        message:
            f"[{MAIN.name}] every run is evaluated"
