"""`xlmjax convert`: checkpoints of Hugging Face and of the original XLM in, Hugging Face's out."""

import argparse
import pathlib

from ml_collections import ConfigDict

HELP = """In: --source=PATH --workdir=DIR writes a workdir with the model of a folder of
transformers (XLM, XLM-RoBERTa, XLM-RoBERTa-XL) or of a .pth file of the original XLM, which is
read without running what is pickled in it. The other commands take it by --config=DIR/config.json
--workdir=DIR, and a run starts from it with --config.checkpoint.init_from=DIR.
Out: --config=DIR/config.json --workdir=DIR --out=FOLDER writes a folder that transformers loads."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add from where to where, and what a source may not say itself."""
    parser.add_argument("--workdir", required=True, help="of ours: written, or with --out read")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--source", metavar="PATH", help="a folder of transformers, or a .pth file")
    way.add_argument("--out", metavar="FOLDER", help="where a folder for transformers goes")
    parser.add_argument("--step", type=int, default=-1, help="with --out; the latest if < 0")
    parser.add_argument(
        "--languages",
        default="",
        metavar="CODE,CODE,...",
        help="with --source: its languages in the order of their ids, where it does not say",
    )
    parser.add_argument("--codes", default="", metavar="FILE", help="of a .pth file: its BPE codes")
    parser.add_argument(
        "--cased", action="store_true", help="text for a .pth file keeps its case and accents"
    )
    parser.add_argument(
        "--vocabulary", default="", metavar="FILE", help="where a source has no tokenizer's files"
    )
    parser.add_argument(
        "--parity",
        choices=("auto", "always", "never"),
        default="auto",
        help="with --source: compare with transformers; auto: if installed, to 1e9 parameters",
    )
    parser.add_argument(
        "--text",
        default="",
        metavar="FILE",
        help="with --parity: lines LANG<tab>TEXT on which to compare the tokenizers",
    )
    parser.add_argument(
        "--dtype", default="float32", metavar="float32|float16|bfloat16", help="with --out"
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Convert one way or the other, and print what became of everything."""
    from xlmjax.conversion import compare, export_model, import_model

    lines = _lines(args.text) if args.text else []
    if args.out:
        report = export_model(config, args.workdir, args.out, args.step, dtype=args.dtype)
    else:
        experiment, model, report = import_model(
            config,
            args.source,
            args.workdir,
            vocabulary=args.vocabulary,
            codes=args.codes,
            codes_keep_case=args.cased,
            language_codes=tuple(filter(None, args.languages.split(","))),
        )
        if args.parity != "never":
            report = compare(experiment, model, report, lines, args.parity == "always")
            report.write(pathlib.Path(args.workdir))
    print("\n".join(report.lines()))
    if report.parity is not None and not report.parity.is_met:
        raise SystemExit(
            "xlmjax convert: that is more than rounding, so it is another model: do not use "
            f"{args.workdir}; look at --languages and at the source's config.json"
        )


def _lines(path: str) -> list[tuple[str, str]]:
    """Return (language, text) of each line of a file."""
    if not pathlib.Path(path).is_file():
        raise ValueError(f"--text={path}: no such file")
    found = []
    for number, line in enumerate(pathlib.Path(path).read_text("utf-8").splitlines(), start=1):
        code, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"--text={path}, line {number}: lines are LANG<tab>TEXT")
        found.append((code, text))
    return found
