"""Sections of configs as typed options: what fits, and what is refused how."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import pytest
from ml_collections import ConfigDict

from faceedit_jax.core import options
from faceedit_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ramp:
  start: float
  end: float


@dataclasses.dataclass(frozen=True)
class Options:
  steps: int
  rate: float = 1.0
  kind: Literal["adam", "muon"] = "adam"
  widths: tuple[int, ...] = (8,)
  box: tuple[float, float] = (0.0, 1.0)
  weight: float | Ramp = 1.0
  path: str | None = None
  more: Mapping[str, float] = dataclasses.field(default_factory=dict)
  flag: bool = False

  def __post_init__(self):
    if self.steps < 0:
      raise ValueError(f"steps is {self.steps}, wanted 0 or more")


def build(**section):
  return options.build(Options, {"steps": 1, **section}, "config.x")


def test_plain_values_become_what_the_fields_say():
  made = build(rate=2, widths=[1, 2], weight=dict(start=1, end=0), path="a")
  assert made.rate == 2.0 and type(made.rate) is float
  assert made.widths == (1, 2)
  assert made.weight == Ramp(1.0, 0.0)
  assert build(weight=3).weight == 3.0
  assert build(more={"a": 1}).more == {"a": 1.0}
  assert build(path=None).path is None


@pytest.mark.parametrize(
  "section, message",
  [
    (dict(rat=1), r"config.x has no key 'rat'; did you mean 'rate'\?"),
    (dict(zzz=1), "config.x has no key 'zzz'; it has box, flag, kind, more"),
    (dict(rate="fast"), "config.x.rate is 'fast', wanted a number"),
    (dict(rate=True), "config.x.rate is True, wanted a number"),
    (dict(steps=1.5), "config.x.steps is 1.5, wanted a whole number"),
    (dict(kind="sgd"), "config.x.kind is 'sgd', wanted 'adam' or 'muon'"),
    (dict(widths=(1, "a")), r"config.x.widths\[1\] is 'a', wanted a whole"),
    (dict(widths=3), "config.x.widths is 3, wanted a list, each entry a whole"),
    (dict(box=(1.0,)), r"config.x.box is \(1.0,\), wanted a list of 2"),
    (dict(weight=dict(start=1, stop=0)), "config.x.weight has no key 'stop'"),
    (dict(weight=dict(start=1)), "config.x.weight lacks the key 'end'"),
    (dict(weight="a"), "config.x.weight is 'a', wanted a number or a section"),
    (dict(more={"a": "b"}), "config.x.more.a is 'b', wanted a number"),
    (dict(flag=1), "config.x.flag is 1, wanted True or False"),
    (dict(steps=-1), "config.x: steps is -1, wanted 0 or more"),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(section, message):
  with pytest.raises(UserError, match=message) as caught:
    build(**section)
  assert "\n" not in str(caught.value)


def test_a_missing_key_is_named():
  with pytest.raises(UserError, match="config.x lacks the key 'steps'"):
    options.build(Options, {}, "config.x")


def test_sections_may_be_config_dicts():
  section = ConfigDict({"steps": 1, "more": {"a": 1}, "weight": 2.0})
  assert options.build(Options, section, "config.x").more == {"a": 1.0}
  section = ConfigDict({"steps": 1, "weight": {"start": 1, "end": 0}})
  assert options.build(Options, section, "config.x").weight == Ramp(1.0, 0.0)


def test_functions_are_called_with_what_they_take():
  def area(width: float, height: float = 1.0, unit: str = "px"):
    return width * height, unit

  assert options.call(area, {"width": 2, "height": 3}, "c.x") == (6.0, "px")
  for section, message in (
    ({"height": 1}, "c.x lacks the key 'width'"),
    ({"width": "a"}, "c.x.width is 'a', wanted a number"),
    ({"width": 1, "hight": 1}, "c.x has no key 'hight'; .* 'height'"),
  ):
    with pytest.raises(UserError, match=message):
      options.call(area, section, "c.x")


def test_a_nets_section_says_more_than_its_module():
  section = {"features": 3, "kind": "plain", "weights": "x.safetensors"}
  made = options.build_net(nn.Dense, section, "config.nets.x")
  assert made == nn.Dense(3)
  with pytest.raises(UserError, match="nets.x has no key 'feature'; .*'feat"):
    options.build_net(nn.Dense, {"feature": 3}, "config.nets.x")
  with pytest.raises(UserError, match="nets.x.features is 'a', wanted a whole"):
    options.build_net(nn.Dense, {"features": "a"}, "config.nets.x")


def test_modules_are_built_too_and_given_fields_cannot_be_set():
  made = options.build(nn.Dense, {"features": 3}, "nets.x", use_bias=False)
  assert made.features == 3 and not made.use_bias
  for key in ("use_bias", "parent", "name"):
    with pytest.raises(UserError, match=f"nets.x has no key '{key}'"):
      options.build(
        nn.Dense, {"features": 3, key: None}, "nets.x", use_bias=False
      )
