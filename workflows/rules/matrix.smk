# Two environments x two learning rates: each cell is a scale of its own, this sets them side by side.
CELLS = ["cpu", "cpu-clean", "cpu-stressed", "cpu-clean-stressed"]
MATRIX = "results/cpu-matrix"


rule matrix_table:
    input:
        expand("results/{cell}/{file}.csv", cell=CELLS, file=["scores", "intervals"]),
    output:
        expand(f"{MATRIX}/matrix.{{kind}}", kind=["md", "csv", "pdf"]),
        report(
            f"{MATRIX}/matrix.png",
            caption="../report/picture.rst",
            category="Figures",
            labels={"figure": "matrix"},
        ),
    log:
        f"{MATRIX}/logs/matrix.log",
    benchmark:
        f"{MATRIX}/benchmarks/matrix.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sources("make_matrix")),
        config=fixed(ANALYSIS),
        run=script("make_matrix"),
        cells=CELLS,
        caption=lambda wildcards: provenance.literal("sdpg/artefacts/figures/matrix.py", "CAPTION"),
    message:
        "[matrix] last checkpoints of every method in every cell"
    shell:
        "{params.run} --cells {params.cells} 2>&1 | tee -i {log}"


rule matrix:
    input:
        expand("results/{cell}/report.html", cell=CELLS),
        rules.matrix_table.output,
    message:
        f"[matrix] all cells: {MATRIX}/matrix.md"
