"""What a stage reads: views of the corpora, training examples, collators and the dev evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.modeling.t5_ciea import supports
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import AlignmentExamples, Examples, RetrievalExamples, WarmUpExamples
from ciea_hf.training.data.features import VisionFeatures, cache_vision_features, features_key
from ciea_hf.training.data.negatives import load_negatives
from ciea_hf.training.run.accelerator import is_sharded
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from ciea_hf.training.run.word_evaluator import WordEvaluator
from ciea_hf.utils import cache_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelerate import Accelerator

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

AUTO = "auto"
PROBED_IMAGES = 16


class StageInputs:
    """Inputs of one stage.

    Args:
        config: Configuration of the stage.
        accelerator: Accelerator of the run.
        data: Data sets by split.
        negatives: Folder of the negatives that the run has mined.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        data: Mapping[str, RetrievalDataset],
        negatives: Path,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.data = data
        self.negatives = Path(config.negatives) if config.negatives else negatives

    def view(
        self,
        model: CIEAModel,
        dataset: RetrievalDataset,
        features: VisionFeatures | None = None,
        content: str | None = None,
    ) -> DocumentView:
        """View a corpus with the stage's content and its policy for images that cannot be decoded."""
        return DocumentView(
            dataset,
            content or self.config.content,
            on_broken_image=self.config.on_broken_image,
            features=features,
            preprocess=model.processor.preprocess_image,
        )

    def features(self, model: CIEAModel, dataset: RetrievalDataset) -> VisionFeatures | None:
        """Compute or load the features of a frozen tower, if the configuration asks for them."""
        config = self.config
        frozen = "vision" in config.freeze
        if config.cache_vision_features not in (None, AUTO) and not frozen:
            raise ValueError("`cache_vision_features` requires a frozen tower: add 'vision' to `freeze`")
        if not config.cache_vision_features or not frozen or config.content == "caption":
            return None
        chosen = str(config.cache_vision_features)
        folder = cache_dir() / "vision-features" / features_key(model)[:16] if chosen == AUTO else Path(chosen)
        return cache_vision_features(
            model,
            self.view(model, dataset),
            folder / f"{dataset.name}-{dataset.corpus_fingerprint[:16]}",
            progress=self.accelerator.is_local_main_process,
        )

    def collator(
        self, model: CIEAModel, needs_reduced_queries: bool = False, chunk_size: int | None = None
    ) -> Collator:
        """Build the collator of a model's inputs."""
        config, builder = self.config, None
        prompts = {} if config.aligns_words else model.config.prompts
        if needs_reduced_queries:
            builder = ComplementaryQueryBuilder(
                model.processor.tokenizer, config.query_reduction, prompts.get("query", "")
            )
        limit = model.processor.max_text_length
        chunk_size = chunk_size or config.gradient_cache_chunk
        joined = chunk_size is None and model.device.type == "cpu" and not is_sharded(self.accelerator)
        joined = joined and supports(model.text_model)
        return Collator(model.processor, limit, prompts, builder, chunk_size, of_equal_length=joined)

    def examples(self, model: CIEAModel) -> Examples:
        """Build the training examples.

        Raises:
            ValueError: If no image can be decoded, or no example can be built.
        """
        config = self.config
        dataset = self.data[config.train_split]
        features = self.features(model, dataset)
        view = self.view(model, dataset, features, "image" if config.stage == "align" else None)
        check_images(view)
        if config.stage == "align":
            return AlignmentExamples(view)
        if config.stage == "warm_up":
            return WarmUpExamples(view)
        if config.stage == "hard_negatives":
            kinds = dict(zip(view.ids, view.kinds, strict=True))
            negatives = load_negatives(self.negatives, kinds)
            counts = {"image": config.image_negatives, "text": config.text_negatives}
            try:
                return RetrievalExamples(dataset, view, negatives, counts, config.caption_dropout, config.image_queries)
            except ValueError as error:
                raise ValueError(f"{self.negatives}: {error}") from error
        return RetrievalExamples(
            dataset, view, caption_dropout=config.caption_dropout, image_queries=config.image_queries
        )

    def dev_evaluator(self, model: CIEAModel) -> DevEvaluator | WordEvaluator | None:
        """Build the evaluator on the dev split; `None` without one."""
        config = self.config
        if not config.dev_split:
            return None
        dataset = self.data[config.dev_split]
        features = self.features(model, dataset)
        check_images(self.view(model, dataset, features))
        if config.aligns_words:
            words = frozenset(special_tokens(model))
            view = self.view(model, dataset, features, "image")
            return WordEvaluator(view, model, self.collator(model), words, config.eval_batch_size)
        return DevEvaluator(
            dataset,
            model,
            self.collator(model, chunk_size=config.eval_batch_size),
            lambda part: self.view(model, part, features),
            config.eval_batch_size,
            limit=config.eval_documents,
            seed=config.seed,
            workers=config.workers,
        )


def check_images(view: DocumentView, count: int = PROBED_IMAGES) -> None:
    """Decode a few images of a corpus, evenly spaced, so that a missing folder is noticed before the training.

    Args:
        view: View of the corpus.
        count: Maximum number of images to decode.

    Raises:
        ValueError: If there are images and none of those can be decoded.
    """
    rows = [row for row, kind in enumerate(view.kinds) if kind == "image"] if view.content != "caption" else []
    if not rows:
        return
    chosen = {rows[i * (len(rows) - 1) // max(count - 1, 1)] for i in range(count)}
    broken: dict[str, str] = {}
    for row in sorted(chosen):
        view.read(row, broken)
        if view.ids[row] not in broken:
            return
    identifier, reason = next(iter(broken.items()))
    raise ValueError(
        f"none of {len(chosen)} images of the corpus can be decoded, for example document {identifier!r}: {reason}; "
        "`content` 'caption' does without images"
    )


def special_tokens(model: CIEAModel) -> list[int]:
    """Return the token ids of a model that are not words: the tokenizer's special tokens and the image's marks."""
    config = model.config
    marks = [config.image_token_id, config.image_start_token_id, config.image_end_token_id]
    return sorted({*model.processor.tokenizer.all_special_ids, *marks})
