"""Warns of real pairs that do not match, and of distributions that were fitted to the target's test pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from metarestore.tasks.pair_files import LISTED, pair_content, split_pairs
from metarestore.tasks.pair_images import Sides
from metarestore.tasks.spec import DistributionSpec

Specs = Mapping[str, DistributionSpec]


def pair_warnings(studies: Iterable[tuple[Specs, DistributionSpec]]) -> list[str]:
    """Returns all warnings about the real pairs of studies, without duplicates.

    Args:
        studies: Auxiliary distributions, by name, and target of each study.

    Raises:
        UserError: Pairs cannot be opened.
    """
    known = list(studies)
    specs = [spec for distributions, target in known for spec in (*distributions.values(), target)]
    implausible = (line for spec in specs for line in spec.implausible_pairs())
    return list(dict.fromkeys([*implausible, *fitted_on_test_pairs(known)]))


def fitted_on_test_pairs(studies: Iterable[tuple[Specs, DistributionSpec]]) -> list[str]:
    """Returns a warning for each distribution that was fitted to test pairs of its target.

    Pairs are compared by their pixels, so that renamed or moved pairs are recognised.

    Args:
        studies: Auxiliary distributions, by name, and target of each study.

    Raises:
        UserError: The target's pairs cannot be opened.
    """
    return list(dict.fromkeys(line for distributions, target in studies for line in _warnings(distributions, target)))


def _warnings(distributions: Specs, target: DistributionSpec) -> Iterator[str]:
    fitted = {name: pairs for name, spec in distributions.items() if (pairs := spec.fitted_pairs())}
    source = target.pairs
    if source is None or source.support_pool is None or not fitted:
        return
    tested = _test_contents(Sides.open(source.folder), source.support_pool)
    for name, pairs in fitted.items():
        if known := sorted(tested[each] for each in pairs.values() if each in tested):
            some = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
            yield (
                f"'{name}' was fitted to {len(known)} of the {len(tested)} test pairs ({some}): results on them are "
                "too good; fit it to the shots only, with tasks fit --count"
            )


@lru_cache(maxsize=8)
def _test_contents(sides: Sides, support_pool: int) -> Mapping[str, str]:
    """Returns the names of the test pairs by the hashes of their pixels."""
    _, test = split_pairs(sides.hr.names, support_pool)
    return {pair_content(sides.lr.image(name), sides.hr.image(name)): name for name in test}
