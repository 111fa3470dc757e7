"""Which examples go together: pairs of people or clips, balanced identities.

A sampler makes a source of another one, and each choice is a pure function of
(seed, index), so it does not depend on hosts, threads or where a run was
resumed. A new one is a file here, with a frozen dataclass of its options that
has `sample(source, seed)`, and a line in `KINDS`.
"""

from data_pipelines.samplers.attributes import AttributeColumns, Attributes
from data_pipelines.samplers.balanced import Balanced, BalancedSource
from data_pipelines.samplers.columns import (
  column_of,
  group_by,
  identities_of,
)
from data_pipelines.samplers.domains import Domains, DomainSource
from data_pipelines.samplers.identity_pairs import IdentityPairs
from data_pipelines.samplers.pairs import Pairs, PairSource
from data_pipelines.samplers.randomness import generator
from data_pipelines.samplers.single import Single
from data_pipelines.samplers.subset import SubsetSource, TakeSource
from data_pipelines.samplers.video_pairs import VideoPairs

# By the key `kind` of a config's section data.sampler.
KINDS = {
  "single": Single,
  "pairs": Pairs,
  "balanced": Balanced,
  "attributes": Attributes,
  "domains": Domains,
}

__all__ = [
  "KINDS",
  "AttributeColumns",
  "Attributes",
  "Balanced",
  "BalancedSource",
  "DomainSource",
  "Domains",
  "IdentityPairs",
  "PairSource",
  "Pairs",
  "Single",
  "SubsetSource",
  "TakeSource",
  "VideoPairs",
  "column_of",
  "generator",
  "group_by",
  "identities_of",
]
