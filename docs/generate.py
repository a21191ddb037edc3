"""Generates pages at build time: the command line from its parsers, the API reference, and the figure of the method."""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

import mkdocs_gen_files

from ciea_hf.cli import build_parser, subparsers
from ciea_hf.training.arguments import build_parser as build_training_parser

REFERENCE = {
    "Model": ["CIEAConfig", "CIEAModel", "CIEAOutput", "CIEAProcessor"],
    "Data": ["load_retrieval_dataset", "save_retrieval_dataset", "RetrievalDataset", "corpus_from_columns"],
    "Retrieval": [
        "Retriever", "Hit", "encode_corpus", "encode_shards", "prune", "load_corpus", "EncodedCorpus",
        "EncodingOptions", "DocumentView", "DocumentRecord", "Index", "SearchResult", "load_index", "FlatIndex",
        "ScanIndex",
    ],
    "Evaluation": ["evaluate", "EvaluationResult", "ranking_metrics", "compare_runs", "bm25_run", "corrupt_captions"],
    "Inspection": ["explain", "Explanation", "Faithfulness", "draw_explanations", "explanation_image", "embed_images"],
    "Hub": ["push", "pull", "write_model_card"],
    "Conversion": ["convert_checkpoint"],
    "Training": ["TrainingConfig", "run_stages", "ContrastiveLoss", "ComplementaryLoss", "AlignmentLoss", "Objective"],
}  # fmt: skip
MODULES = {
    "ciea_hf.modeling.configuration_ciea": ["CIEAConfig"],
    "ciea_hf.modeling.modeling_ciea": ["CIEAModel", "CIEAOutput"],
    "ciea_hf.modeling.processing_ciea": ["CIEAProcessor"],
    "ciea_hf.data.loading": ["load_retrieval_dataset"],
    "ciea_hf.data.export": ["save_retrieval_dataset"],
    "ciea_hf.data.dataset": ["RetrievalDataset", "corpus_from_columns"],
    "ciea_hf.retrieval.search": ["Retriever", "Hit"],
    "ciea_hf.retrieval.building": ["encode_corpus", "encode_shards"],
    "ciea_hf.retrieval.plans": ["prune"],
    "ciea_hf.retrieval.corpus": ["EncodedCorpus"],
    "ciea_hf.retrieval.folder": ["load_corpus"],
    "ciea_hf.retrieval.encoding": ["EncodingOptions"],
    "ciea_hf.retrieval.documents": ["DocumentView"],
    "ciea_hf.retrieval.records": ["DocumentRecord"],
    "ciea_hf.retrieval.results": ["Index", "SearchResult"],
    "ciea_hf.retrieval.indexes": ["load_index"],
    "ciea_hf.retrieval.indexes.flat": ["FlatIndex"],
    "ciea_hf.retrieval.indexes.scan": ["ScanIndex"],
    "ciea_hf.evaluation.evaluator": ["evaluate", "EvaluationResult"],
    "ciea_hf.evaluation.metrics": ["ranking_metrics"],
    "ciea_hf.evaluation.significance": ["compare_runs"],
    "ciea_hf.evaluation.baselines": ["bm25_run"],
    "ciea_hf.evaluation.robustness": ["corrupt_captions"],
    "ciea_hf.explain.explanation": ["explain", "Explanation"],
    "ciea_hf.explain.faithfulness": ["Faithfulness"],
    "ciea_hf.explain.drawing": ["draw_explanations", "explanation_image"],
    "ciea_hf.explain.image_embeddings": ["embed_images"],
    "ciea_hf.hub.upload": ["push"],
    "ciea_hf.hub.download": ["pull"],
    "ciea_hf.model_cards.card": ["write_model_card"],
    "ciea_hf.convert": ["convert_checkpoint"],
    "ciea_hf.training.config": ["TrainingConfig"],
    "ciea_hf.training.run.stages": ["run_stages"],
    "ciea_hf.training.loss.losses": ["ContrastiveLoss", "ComplementaryLoss", "AlignmentLoss"],
    "ciea_hf.training.loss.objective": ["Objective"],
}
INHERITED = {"CIEAModel": ["forward", "encode", "encode_query", "encode_document", "similarity", "similarity_pairwise"]}


def command_page() -> str:
    """Return the page of all commands, from their parsers."""
    parts = ["# Command line\n\nGenerated from the help of each command.\n"]
    parser = build_parser()
    for command in [parser, *subparsers(parser), build_training_parser()]:
        command.formatter_class = _WideHelp
        parts.append(f"## {command.prog}\n\n```text\n{command.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


class _WideHelp(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=84)


def reference_page() -> str:
    """Return the page of the API reference."""
    places = {name: module for module, names in MODULES.items() for name in names}
    parts = ["# API reference\n\nGenerated from the docstrings.\n"]
    for title, names in REFERENCE.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts.append(f"::: {places[name]}.{name}\n")
            if name in INHERITED:
                parts[-1] += "    options:\n      inherited_members: true\n      members:\n"
                parts[-1] += "".join(f"        - {member}\n" for member in INHERITED[name])
    return "\n".join(parts)


def method_figure() -> str:
    """Return the figure of the forward pass and the two losses, as SVG."""
    boxes = {
        "image": (20, 30, "image", 0), "tower": (20, 110, "vision tower\n(frozen)", 1),
        "projector": (20, 190, "projector", 1), "caption": (250, 30, "caption", 0),
        "weights": (250, 110, "complement weights\n1 - max similarity", 2),
        "extractor": (250, 190, "extractor", 2), "model": (250, 270, "language model", 1),
        "document": (250, 350, "document embedding", 3), "alone": (20, 350, "image-only embedding", 3),
        "query": (480, 30, "query", 0), "reduced": (710, 30, "query without the\ncaption's words", 2),
        "queries": (480, 270, "language model", 1), "embedding": (480, 350, "query embedding", 3),
        "reducedembedding": (710, 350, "reduced query\nembedding", 3),
    }  # fmt: skip
    arrows = [
        ("image", "tower"), ("tower", "projector"), ("caption", "weights"), ("weights", "extractor"),
        ("projector", "extractor"), ("extractor", "model"), ("model", "document"), ("model", "alone"),
        ("query", "queries"), ("query", "reduced"), ("queries", "embedding"), ("reduced", "reducedembedding"),
    ]  # fmt: skip
    fills = ["#eceff1", "#cfd8dc", "#b2dfdb", "#ffe0b2"]
    width, height = 190, 52
    drawn = []
    for source, target in arrows:
        x1, y1 = boxes[source][0] + width / 2, boxes[source][1] + height
        x2, y2 = boxes[target][0] + width / 2, boxes[target][1]
        if boxes[source][1] == boxes[target][1]:  # side by side
            x1, y1, x2, y2 = boxes[source][0] + width, y1 - height / 2, boxes[target][0], y2 + height / 2
        drawn.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#546e7a" marker-end="url(#tip)"/>')
    for x, y, text, kind in boxes.values():
        drawn.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fills[kind]}"/>')
        lines = text.split("\n")
        for i, line in enumerate(lines):
            level = y + height / 2 + 5 + 17 * (i - (len(lines) - 1) / 2)
            drawn.append(f'<text x="{x + width / 2}" y="{level}" text-anchor="middle">{escape(line)}</text>')
    for x1, x2, y, label in ((440, 480, 376, "L_c"), (115, 805, 430, "L_comp")):
        drop = "" if label == "L_c" else f"M {x1} 402 V {y} H {x2} V 402"
        path = drop or f"M {x1} {y} H {x2}"
        drawn.append(f'<path d="{path}" fill="none" stroke="#d84315" stroke-width="2"/>')
        drawn.append(f'<text x="{(x1 + x2) / 2}" y="{y - 8}" text-anchor="middle" fill="#d84315">{label}</text>')
    marker = '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
    marker += '<path d="M0,0 L8,3 L0,6 z" fill="#546e7a"/></marker>'
    style = 'font-family="sans-serif" font-size="14" fill="#263238"'
    body = "".join(drawn)
    frame = '<rect width="920" height="450" fill="#ffffff" rx="10"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 450" {style}><defs>{marker}</defs>'
    return f"{head}{frame}{body}</svg>"


def main() -> None:
    """Write the generated pages into the site."""
    for name, content in (
        ("cli.md", command_page()),
        ("reference.md", reference_page()),
        ("method.svg", method_figure()),
    ):
        with mkdocs_gen_files.open(name, "w") as file:
            file.write(content)
    results = Path("benchmarks/results")
    for name in ("ablation.png", "robustness.png"):
        with mkdocs_gen_files.open(name, "wb") as file:
            file.write((results / name).read_bytes())


main()
