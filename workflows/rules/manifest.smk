# The last step: what there is, what made it, and from what. It is made anew after any edit of code or config, so that it
# never tells of an older one; it takes seconds.
ALL_SOURCES = {
    file
    for path in Path(workflow.basedir, "workflows/scripts").glob("*.py")
    for file in sources(path.stem, extra=provenance.algorithm_files().values())
}


rule manifest:
    input:
        EVERYTHING,
    output:
        f"{RESULTS}/manifest.json",
    log:
        f"{RESULTS}/logs/manifest.log",
    benchmark:
        f"{RESULTS}/benchmarks/manifest.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=LIGHT_MB,
        gpu=0,
    params:
        *fingerprints(sorted(ALL_SOURCES)),
        config=fixed(CONFIG),
        run=script("make_manifest"),
        # The files of single runs are found from these; a command with all of them could be too long.
        targets=[
            file
            for file in EVERYTHING
            if not file.startswith((f"{RESULTS}/runs", f"{RESULTS}/eval"))
        ],
    message:
        f"[{SCALE}] manifest.json: every file's hash, and what made it"
    shell:
        "{params.run} {params.targets} 2>&1 | tee -i {log}"
