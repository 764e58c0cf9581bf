"""Two results of one suite side by side."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agentos.errors import UsageError

RESAMPLES = 2000
"""Bootstrap resamples; the interval holds the middle 95 % of their means."""
SEED = 0
"""The same two results always give the same interval."""
Json = dict[str, Any]


def read_result(path: Path) -> Json:
    """An earlier result as `agentos eval --json` printed it; `UsageError` when it is none."""
    try:
        result = json.loads(path.read_text("utf-8"))
        usable = all(isinstance(result[name], str) for name in ("suite", "sha256"))
        usable = usable and all(isinstance(case["id"], str) for case in result["cases"])
        usable = usable and all(isinstance(v, int | float) for case in result["cases"] for v in case["scores"].values())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a result saved with --json") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        usable = False
    if not usable:
        raise UsageError(f"{path} is no result of `agentos eval`; give one saved with --json")
    return dict(result)


def require_same_data(new: Json, old: Json) -> None:
    """`UsageError` unless both results are of one suite on one data file."""
    if new["suite"] != old["suite"]:
        raise UsageError(f"the earlier result is of {old['suite']}, not of {new['suite']}; compare like with like")
    if new["sha256"] != old["sha256"]:
        raise UsageError("the earlier result was measured on another data file; compare like with like")


def compare(new: Json, old: Json) -> Iterator[Json]:
    """For each group and measure the mean difference (new - old) over the cases both have, with its interval.

    The cases are resampled in pairs (Efron's percentile bootstrap).
    """
    before = {case["id"]: case["scores"] for case in old["cases"]}
    random = np.random.default_rng(SEED)
    for row in new["rows"]:
        for measure in row["scores"]:
            pairs = [
                (case["scores"][measure], before[case["id"]][measure])
                for case in new["cases"]
                if row["group"] in case["groups"]
                and measure in case["scores"]
                and measure in before.get(case["id"], {})
            ]
            if pairs:
                differences = np.array([after - was for after, was in pairs])
                drawn = random.choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
                low, high = (float(value) for value in np.percentile(drawn, (2.5, 97.5)))
                yield {
                    "group": row["group"], "measure": measure, "n": len(pairs),
                    "difference": float(differences.mean()), "low": low, "high": high,
                }  # fmt: skip
