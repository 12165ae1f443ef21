# Figures, tables and the report: they read files only. A figure or table depends on its own module and the shared ones.
from glob import glob

from sdpg.artefacts.figures import SHOWN

# To add one: its module in sdpg/artefacts/figures or sdpg/artefacts/tables, and its line with the files that it reads.
FIGURES = {
    "training_curves": SCORES + METRICS,
    "final_accuracy": SCORES,
    "beta_schedule": RECORDS + METRICS,
    "ablations": SCORES + RECORDS + METRICS + ["results/published/curves.csv"],
    "self_distillation": SCORES + RECORDS + METRICS + ["results/published/curves.csv"],
    **{name: [f"{RESULTS}/{name}.csv"] for name in SUMMARIES},
    "published_curves": ["results/published/curves.csv", "results/published/tables.csv"],
}
# A figure of certain methods is planned where the config has at least two of them.
FIGURES = {
    name: files
    for name, files in FIGURES.items()
    if name not in SHOWN or len(set(SHOWN[name]) & set(METHODS)) >= 2
}
TABLES = {
    "main": SCORES,
    "stability": [f"{RESULTS}/stability.csv"],
    "cost": [f"{RESULTS}/cost.csv"],
    "power": rules.power.output,
    **({"lm_eval": [*SCORES, *BASE_LM_EVAL]} if LM_EVAL else {}),
}
FIGURE_SOURCES = sources("plot", without={f"sdpg/artefacts/figures/{name}.py" for name in FIGURES})
TABLE_SOURCES = sources(
    "make_table", without={f"sdpg/artefacts/tables/{name}.py" for name in TABLES}
)


rule figure:
    input:
        lambda wildcards: FIGURES[wildcards.figure],
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{RESULTS}/logs/figures/{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(FIGURE_SOURCES),
        module=module_sources("sdpg/artefacts/figures", "figure", FIGURE_SOURCES),
        caption=lambda wildcards: provenance.literal(
            f"sdpg/artefacts/figures/{wildcards.figure}.py", "CAPTION"
        ),
        config=lambda wildcards: (
            "" if wildcards.figure.startswith("published") else stable(ANALYSIS)
        ),
        run=script("plot"),
    message:
        f"[{SCALE}] figure {{wildcards.figure}}"
    shell:
        "{params.run} {wildcards.figure} 2>&1 | tee -i {log}"


rule table:
    input:
        lambda wildcards: TABLES[wildcards.table],
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=report(
            f"{RESULTS}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{RESULTS}/logs/tables/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/{{table}}.tsv"
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(TABLE_SOURCES),
        module=module_sources("sdpg/artefacts/tables", "table", TABLE_SOURCES),
        caption=lambda wildcards: provenance.literal(
            f"sdpg/artefacts/tables/{wildcards.table}.py", "__doc__"
        ),
        config=fixed(ANALYSIS),
        run=script("make_table"),
    message:
        f"[{SCALE}] table {{wildcards.table}}"
    shell:
        "{params.run} {wildcards.table} 2>&1 | tee -i {log}"


rule figures:
    input:
        expand(f"{RESULTS}/figures/{{figure}}.{{kind}}", figure=FIGURES, kind=["pdf", "png", "csv"]),
    message:
        f"[{SCALE}] every figure is drawn"


rule tables:
    input:
        expand(f"{RESULTS}/tables/{{table}}.{{kind}}", table=TABLES, kind=["md", "tex", "csv"]),
    message:
        f"[{SCALE}] every table is made"


REFERENCE = f"results/reference/{SCALE}"
REPORT_FILES = [  # beside its code: the page's template, and the settings whose differences it lists
    *sorted(glob("sdpg/artefacts/report/templates/*")),
    *sorted(glob("config/presets/*.yaml") + glob("config/methods/*.yaml")),
]


rule report:
    input:
        SCORES,
        rules.power.output,
        rules.claims.output,
        # With a reference, the page says whether the results agree with it.
        sorted(glob(f"{REFERENCE}/*.*") + rules.evaluate.input if Path(REFERENCE).is_dir() else []),
        RECORDS,
        METRICS,
        rules.data.output.report,
        expand(rules.base_model.output.report, base=BASES),
        rules.figures.input,
        rules.tables.input,
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("make_report", extra=REPORT_FILES)),
        config=fixed(ANALYSIS),
        run=script("make_report"),
    message:
        f"[{SCALE}] report.html: verdicts, figures, tables, configurations, cost and files on one page"
    shell:
        "{params.run} 2>&1 | tee -i {log}"
