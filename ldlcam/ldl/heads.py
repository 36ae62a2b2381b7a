"""From features to logits over bins."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldlcam._check import check_count, check_sequence, check_tensor
from ldlcam.ldl.bins import Bins, check_bins


class ExpectationHead(nn.Module):
    """Linear layer from features, and covariates such as sex, to logits over bins.

    Covariates go through small linear layers of their own, with a ReLU between two of them and
    none after the last, and are joined to the features.

    Args:
        in_features: Number of features F.
        bins: The bins, K of them. They are kept as `head.bins` and saved with the head.
        covariates: Number of covariates C; 0 for none.
        covariate_hidden: Widths of the covariates' layers; empty to join the covariates as they
            are.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a number is not an integer above 0 (for `covariates`, at least 0).

    Example:
        >>> import torch
        >>> from ldlcam import Bins, ExpectationHead
        >>> head = ExpectationHead(512, Bins(1, 240, unit="months"), covariates=1)
        >>> sex = torch.tensor([[1.0], [-1.0]])
        >>> head(torch.randn(2, 512), sex).shape
        torch.Size([2, 240])

    References:
        Chen et al., arXiv:2006.00202, Eqs. 6 and 7 (without the softmax) and Table III: its
        architectures are `covariates=0`, and `covariate_hidden` of (16,), (32,), (64,), (64, 32).
        As in the authors' code the last of the covariates' layers is linear.
    """

    def __init__(
        self,
        in_features: int,
        bins: Bins,
        *,
        covariates: int = 0,
        covariate_hidden: Sequence[int] = (32,),
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_bins(bins)
        check_count("covariates", covariates, least=0)
        check_sequence("covariate_hidden", covariate_hidden)
        for width in covariate_hidden:
            check_count("covariate_hidden", width)
        self.bins = bins
        self.in_features = in_features
        self.covariates = covariates
        widths = [covariates, *covariate_hidden] if covariates else [0]
        layers: list[nn.Module] = []
        for i in range(len(widths) - 1):
            layers += [nn.ReLU()] if i else []
            layers += [nn.Linear(widths[i], widths[i + 1])]
        self.covariate_layers = nn.Sequential(*layers)
        self.linear = nn.Linear(in_features + widths[-1], len(bins))

    def forward(self, features: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Logits of each sample.

        Args:
            features: Features (N, F), floating.
            covariates: Covariates (N, C), real; None if and only if the head has none. Scale
                them to about -1 to 1. A missing one (NaN) counts as 0, midway between two sexes
                given as -1 and 1.

        Returns:
            Logits (N, K) in the features' dtype, or autocast's.

        Raises:
            TypeError: If an argument is not a tensor of the kind above.
            ValueError: If a shape is wrong, or covariates are left out or not expected.
        """
        check_tensor("features", features, "N F", "floating", F=self.in_features)
        if (covariates is None) != (self.covariates == 0):
            expected = f"(N, {self.covariates})" if self.covariates else "None"
            got = "None" if covariates is None else "a value"
            raise ValueError(f"covariates: expected {expected}, got {got}")
        if covariates is not None:
            sizes = {"N": features.shape[0], "C": self.covariates}
            check_tensor("covariates", covariates, "N C", "real", **sizes)
            known = torch.where(covariates.isnan(), 0, covariates).to(features.dtype)
            features = torch.cat([features, self.covariate_layers(known)], dim=-1)
        logits: Tensor = self.linear(features)
        return logits
