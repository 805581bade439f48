"""Which network masks belong to, and which masks a network was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.log import log
from kdp.pruning.groups import Group, Masks, unit_indices
from kdp.pruning.masks import masks_of, removed_are_zero
from kdp.removed import REMOVED, Axis, pack_removed

MASKS_DIGEST, NETWORK_DIGEST = "masks_digest", "network_digest"
"""Keys of an artifact."""


@dataclass(frozen=True)
class MasksIdentity:
    """What masks, and every network made with them, share.

    Attributes:
        masks: SHA-256 of the masks; None in files of other programs and of early versions.
        network: SHA-256 of the weights that the masks were searched for; None likewise.
    """

    masks: str | None
    network: str | None

    @classmethod
    def of(cls, artifact: Artifact) -> MasksIdentity:
        """The identity that a file carries."""
        extra = artifact.extra
        return cls(extra.get(MASKS_DIGEST), extra.get(NETWORK_DIGEST))

    def plain(self) -> dict[str, str]:
        """As files hold it; what is unknown is left out."""
        pairs = {MASKS_DIGEST: self.masks, NETWORK_DIGEST: self.network}
        return {key: value for key, value in pairs.items() if value is not None}

    def contradicts(self, other: MasksIdentity) -> bool:
        """Whether something that both know differs."""
        pairs = ((self.masks, other.masks), (self.network, other.network))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def masks_digest(masks: Masks) -> str:
    """SHA-256 of names and values, whatever file they are in."""
    return _digest((name, mask.cpu().numpy().tobytes()) for name, mask in masks.items())


def network_digest(params: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of a state dict."""
    return _digest(
        (f"{name} {tensor.dtype} {tuple(tensor.shape)}", _bytes(tensor))
        for name, tensor in params.items()
    )


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _digest(parts: Iterable[tuple[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(parts, key=lambda part: part[0]):
        digest.update(f"{name}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def masked_extra(
    model: nn.Module, groups: Sequence[Group], masks: Masks, identity: MasksIdentity
) -> dict[str, Any]:
    """What the file of a network with zeroed units says about its masks.

    Args:
        model: the network.
        groups: all its groups.
        masks: those it was made with.
        identity: of the masks.
    """
    return {**identity.plain(), REMOVED: pack_removed(_removed_axes(model, groups, masks))}


def _removed_axes(model: nn.Module, groups: Sequence[Group], masks: Masks) -> dict[Axis, Tensor]:
    params, axes = dict(model.named_parameters()), dict[Axis, Tensor]()
    for group in groups:
        removed = ~masks[group.name].cpu()
        for piece in group.weight_slices if removed.any() else ():
            length = params[piece.param].shape[piece.dim]
            axis = axes.setdefault((piece.param, piece.dim), torch.zeros(length, dtype=torch.bool))
            axis[unit_indices(removed, piece.width, piece.start)] = True
    return axes


def masks_for(
    path: Path, model: nn.Module, artifact: Artifact, masks_path: Path, groups: Sequence[Group]
) -> tuple[Masks, MasksIdentity]:
    """Read the masks of a network, once it is known to have been made with them.

    A network without identity, as of another program, is accepted if its removed units are zero.

    Args:
        path, model, artifact: the network.
        masks_path: the file of the masks.
        groups: all groups of the network.

    Returns:
        The masks, and the identity that goes on to what is made with them.

    Raises:
        KdpError: the masks are those of another network, the network was made with others, or a
            removed unit is not zero.
    """
    stored = load(masks_path)
    masks = masks_of(masks_path, stored, groups)
    digest, claimed = masks_digest(masks), MasksIdentity.of(stored)
    if claimed.masks not in (None, digest):
        raise KdpError(f"{masks_path} is damaged: its masks are not those that were searched")
    identity = MasksIdentity(digest, claimed.network)
    if MasksIdentity.of(artifact).contradicts(identity):
        raise KdpError(
            f"{path} was made with other masks than those in {masks_path}: run the stages after "
            "`kdp prune` again, or name files of one run (--from, --masks)"
        )
    check_removed(model, groups, masks, str(path))
    _log_without_identity(path, artifact, masks_path)
    return masks, identity


def check_removed(model: nn.Module, groups: Sequence[Group], masks: Masks, what: str) -> None:
    """Make sure that every removed unit is exactly zero.

    Raises:
        KdpError: one is not.
    """
    if not removed_are_zero(model, groups, masks):
        raise KdpError(
            f"{what} has weights other than zero where the masks remove units: network and masks "
            "are not of one `kdp prune`"
        )


def _log_without_identity(path: Path, artifact: Artifact, masks_path: Path) -> None:
    """Say that only its zeros connect a network with masks, where nothing else does."""
    parents = {parent.sha256 for parent in artifact.record.parents} if artifact.record else set()
    if MasksIdentity.of(artifact).masks is None and sha256(masks_path) not in parents:
        log.info(
            f"{path} does not say which masks it was made with; "
            f"it fits {masks_path}: all removed units are zero"
        )
