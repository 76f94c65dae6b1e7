"""What a code knows: the accuracy of a linear classifier on it."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor


def linear_probe(
    codes: Float[Tensor, "rows latent"],
    labels: Int[Tensor, " rows"],
    test_codes: Float[Tensor, "others latent"],
    test_labels: Int[Tensor, " others"],
    seed: int = 0,
) -> float:
    """Accuracy on test codes of a logistic regression fitted to training codes (scikit-learn, codes standardised)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy is long settled when the weights are not
        estimator.fit(codes.cpu().double().numpy(), labels.cpu().numpy())
    predicted = estimator.predict(test_codes.cpu().double().numpy())
    return float(np.mean(predicted == test_labels.cpu().numpy()))
