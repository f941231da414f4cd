"""`hybridvit push`: a finished run on the Hugging Face hub."""

from pathlib import Path

from hybridvit.stderr import remark

OPENED_BY = {
    "timm": "hybridvit, timm and transformers open it.",
    "timm with hybridvit": "hybridvit opens it; timm and transformers do after `import hybridvit`.",
    "hybridvit": "hybridvit alone opens it: neither timm nor transformers has such a model.",
}


def push(
    run: str,
    repository: str,
    *,
    private: bool = False,
    revision: str = "main",
    licence: str = "",
    dry_run: Path | None = None,
) -> None:
    """Publish a finished run on the Hugging Face hub.

    Written are the weights, config.json, a README with the measured numbers, the recipe (of paths the last part alone),
    metrics and curves; no picture of your data. FastViT is written as timm has it, so that timm and transformers open
    it without this package; what was written is opened by timm and compared before it is sent.

    The repository is created if it is not there. One that is empty, or holds nothing but what an earlier push wrote,
    gets one commit, and its history keeps what was there; any other is left as it is. The token comes from `hf auth
    login` or HF_TOKEN.

    Examples:
      hybridvit push runs/digits ada/digits-t8 --dry_run digits-t8
      hybridvit push runs/digits ada/digits-t8 --licence apache-2.0
      hybridvit push runs/digits ada/digits-t8 --private --revision v2
      hybridvit predict hf://ada/digits-t8 photo.jpg

    Args:
        run: the folder of a run that has ended.
        repository: OWNER/NAME on the hub.
        private: create the repository for its owner alone.
        revision: the branch to write to; created if it is not there.
        licence: of weights that were trained from scratch, such as apache-2.0; what began with others' weights has \
theirs.
        dry_run: write everything to this new or empty folder, and send nothing.
    """
    from hybridvit.publish.push import listed
    from hybridvit.publish.push import push as run_push

    done = run_push(run, repository, private=private, revision=revision, licence=licence, dry_run=dry_run, say=remark)
    contents = done.contents
    if dry_run is not None:
        print(f"Wrote {contents.folder}, and sent nothing:", *listed(contents), sep="\n")
        if contents.notice:
            print(contents.notice)
    else:
        created = "Created" if done.is_new else "Updated"
        print(f"{created} {repository}: {len(contents.files)} files in one commit, {done.url}")
    difference = (
        "" if contents.difference is None else f" timm's answer differs by {contents.difference:.1e} of the largest."
    )
    print(f"{OPENED_BY[contents.opens_in]}{difference}")
    if not contents.licence:
        print("No licence is stated, so others may not use it. Say one with --licence, such as apache-2.0.")
