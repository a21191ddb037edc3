"""The module that Accelerate wraps: one call embeds a batch, so an engine sees one forward per backward pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ciea_hf.modeling.fusion_ciea import ModelBatch
from ciea_hf.training.data.batch import InputGroup
from ciea_hf.training.distributed import gather_sizes
from ciea_hf.training.loss.gradient_cache import embed_cached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ciea_hf.modeling.modeling_ciea import CIEAModel


class Embedder(nn.Module):
    """Embeds the groups of a batch.

    With `gradient_cache` each group is embedded without keeping its activations, and again, with the same random state,
    when the backward pass reaches it. Memory is then that of the largest group, whatever the size of the batch.

    Args:
        model: Model that is trained.
        image_only_from: Patches from which each image is also embedded alone; `None` for no image-only embeddings.
        gradient_cache: Whether groups are embedded through [`embed_cached`].
        in_step: Whether every process must run equally many forward passes, as engines require that gather shards of
            the weights in each pass. A process with fewer groups runs additional passes whose results are not used.
    """

    def __init__(
        self,
        model: CIEAModel,
        image_only_from: Literal["extracted", "projected"] | None = None,
        gradient_cache: bool = False,
        in_step: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.image_only_from = image_only_from
        self.gradient_cache = gradient_cache
        self.in_step = in_step

    def forward(self, groups: Sequence[InputGroup]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed all groups.

        Args:
            groups: Forward passes, on any device; may be empty.

        Returns:
            Embeddings (inputs of all groups, D) in the order of the inputs; image-only embeddings (images of all
            groups, D) in the order of the groups, empty without `image_only_from` and in evaluation mode; and the
            logarithm of the logit scale.
        """
        fillers = self._fillers(groups) if self.in_step else []
        embeddings, image_only, unused = [], [], []
        positions: list[int] = []
        ordered = sorted([*groups, *fillers], key=lambda group: group.has_image)
        for given, (rows, images) in zip(ordered, self._embed_groups(ordered), strict=True):
            if any(given is filler for filler in fillers):
                unused.append(rows.sum() + images.sum())
            else:
                embeddings.append(rows)
                image_only.append(images)
                positions += given.positions.tolist()
        nothing = self.model.logit_scale.new_empty(0, self.model.config.hidden_size)
        # an output of this pass, not the parameter itself; fillers take part in the backward pass with gradients of 0
        logit_scale = self.model.logit_scale * 1.0 + 0.0 * sum(unused) + self._anchor()
        in_group_order = torch.cat(embeddings or [nothing])
        order = torch.tensor(positions, dtype=torch.long).argsort().to(in_group_order.device, non_blocking=True)
        return in_group_order[order], torch.cat(image_only or [nothing]), logit_scale

    def _embed_groups(self, groups: Sequence[InputGroup]) -> Iterator[tuple[Tensor, Tensor]]:
        """Embed all groups in one pass if their activations are kept anyway, else one by one."""
        if not groups or self.gradient_cache or self.in_step or not torch.is_grad_enabled():
            yield from map(self._embed_group, groups)
            return
        moved = [self._check(group).to(self.model.logit_scale.device) for group in groups]
        batches = []
        for group, features in zip(moved, self._features_of_all(moved), strict=True):
            image_only_from = self._image_only_from(group)
            batches.append(ModelBatch(group.input_ids, group.attention_mask, features, image_only_from, False))
        for output in self.model.embed_batches(batches):
            embeddings = cast("Tensor", output.embeddings)
            images = output.image_embeddings
            yield embeddings, embeddings[:0] if images is None else images

    def _check(self, group: InputGroup) -> InputGroup:
        """Compare images and placeholders of a group before it is copied to the device, and return it."""
        given = group.pixel_values if group.vision_features is None else group.vision_features
        patches = None if group.vision_features is None else group.vision_features.shape[1]
        self.model.check_placeholders(group.input_ids, 0 if given is None else len(given), patches)
        return group

    def _image_only_from(self, group: InputGroup) -> Literal["extracted", "projected"] | None:
        """Return the patches of the image-only embeddings of a group; queries and evaluations have none."""
        return self.image_only_from if group.has_image and self.training and not group.is_query else None

    def _features_of_all(self, groups: Sequence[InputGroup]) -> list[Tensor | None]:
        """Return the features of each group, computed in one pass of the vision tower."""
        features = [group.vision_features for group in groups]
        pixels = {number: group.pixel_values for number, group in enumerate(groups) if group.pixel_values is not None}
        if pixels:
            with torch.set_grad_enabled(not self._vision_is_frozen()):
                found = self.model.get_vision_features(torch.cat(list(pixels.values())))
            for number, part in zip(pixels, found.split([len(values) for values in pixels.values()]), strict=True):
                features[number] = part
        return features

    def _embed_group(self, given: InputGroup) -> tuple[Tensor, Tensor]:
        group = self._check(given).to(self.model.logit_scale.device)  # one by one, so that only its pixels take memory
        features = self._vision_features(group)
        pixel_values = group.pixel_values if features is None else None
        tensors = (group.input_ids, group.attention_mask, pixel_values, features)
        embed = partial(self._embed, image_only_from=self._image_only_from(group))
        if not self.gradient_cache or not torch.is_grad_enabled():
            return embed(*tensors)
        if self.in_step:  # torch's checkpointing supports weights that are gathered and freed in shards
            found: tuple[Tensor, Tensor] = checkpoint(embed, *tensors, use_reentrant=False)
            return found
        return embed_cached(embed, tensors, [p for p in self.model.parameters() if p.requires_grad])

    def _anchor(self) -> Tensor | float:
        """Return 0 with a gradient of 0, for batches without any trained parameter when the scale is frozen."""
        if self.model.logit_scale.requires_grad or self.in_step:
            return 0.0
        trained = next((p for p in self.model.parameters() if p.requires_grad), None)
        return 0.0 if trained is None else 0.0 * trained.flatten()[0]

    def _fillers(self, groups: Sequence[InputGroup]) -> list[InputGroup]:
        """Return groups of one row that bring this process to the maximum number of passes of each kind."""
        kinds = [(False, False), (True, False), (True, True)]  # has an image, and that as features
        present = [(group.has_image, group.vision_features is not None) for group in groups]
        own = [present.count(kind) for kind in kinds]
        counts = gather_sizes(own, self.model.logit_scale.device)
        fillers: list[InputGroup] = []
        for kind, count, by_process in zip(kinds, own, zip(*counts, strict=True), strict=True):
            fillers += [self._filler(*kind) for _ in range(max(by_process) - count)]
        return fillers

    def _filler(self, image: bool, as_features: bool) -> InputGroup:
        config = self.model.config
        patches = config.image_seq_length
        ids = torch.full((1, patches if image else 1), config.image_token_id if image else 0)
        group = InputGroup(torch.zeros(1, dtype=torch.long), ids, torch.ones_like(ids))
        if as_features:
            group.vision_features = torch.zeros(1, patches, config.vision_hidden_size)
        elif image:
            size = getattr(config.vision_config, "image_size", 224)
            height, width = (size, size) if isinstance(size, int) else size
            group.pixel_values = torch.zeros(1, 3, height, width)
        return group

    def train(self, mode: bool = True) -> Embedder:
        """Set the mode; a frozen vision tower stays in evaluation mode."""
        super().train(mode)
        if self._vision_is_frozen():
            self.model.vision_model.eval()
        return self

    def _vision_is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.model.vision_model.parameters())

    def _vision_features(self, group: InputGroup) -> Tensor | None:
        """Return the features of a frozen tower, computed once per step; `None` without images or if it is trained."""
        if group.vision_features is not None or group.pixel_values is None or not self._vision_is_frozen():
            return group.vision_features
        with torch.no_grad():
            return self.model.get_vision_features(group.pixel_values)

    def _embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None,
        vision_features: Tensor | None,
        image_only_from: Literal["extracted", "projected"] | None,
    ) -> tuple[Tensor, Tensor]:
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            vision_features=vision_features,
            image_only_from=image_only_from,
            return_dict=True,
            check_placeholders=False,
        )
        images = output.image_embeddings
        return output.embeddings, output.embeddings[:0] if images is None else images
