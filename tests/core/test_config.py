"""Loading, overriding, comparing and storing configs."""

import pytest

from faceedit_jax.core import config as config_lib

FILE = """
from ml_collections import ConfigDict

VARIANTS = ("small", "large")


def get_config(variant="small"):
  return ConfigDict({
    "name": "x",
    "steps": {"small": 100, "large": 900}[variant],
    "stages": ["a", "b"],
    "stage": {"a": {"steps": 100, "lr": 1e-3, "clip": None, "on": True}},
    "mult": (1, 2), "scale": (0.5, 1.0), "levels": (), "grid": ((1, 2), (3, 4)),
  })
"""


@pytest.fixture
def path(tmp_path):
  (tmp_path / "x.py").write_text(FILE)
  return str(tmp_path / "x.py")


def test_load_with_and_without_variant(path):
  config = config_lib.load(path)
  assert config.steps == 100 and config.stages == ("a", "b")
  assert config_lib.load(f"{path}:large").steps == 900


def test_load_errors_are_one_line(path):
  missing = path.replace("x.py", "y.py")
  with pytest.raises(config_lib.ConfigError, match=r"no config file .*x\.py"):
    config_lib.load(missing)
  with pytest.raises(
    config_lib.ConfigError,
    match="no variant 'lrge'; it has small, large. Did you mean 'large'",
  ) as error:
    config_lib.load(f"{path}:lrge")
  assert "\n" not in str(error.value)


def test_a_file_of_the_project_is_found_from_elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    config_lib.ConfigError,
    match=r"no config file 'configs/difffae.py'; there is /.*/configs/difffae",
  ):
    config_lib.load("configs/difffae.py")
  (tmp_path / "a.txt").write_text("x = 1")
  with pytest.raises(config_lib.ConfigError, match="a.txt is no Python file"):
    config_lib.load("a.txt")


def test_variant_unknown_to_a_file_without_list(path, tmp_path):
  other = tmp_path / "z.py"
  other.write_text(FILE.replace("VARIANTS", "_NAMES"))
  with pytest.raises(config_lib.ConfigError, match="no variant 'tiny'"):
    config_lib.load(f"{other}:tiny")
  (tmp_path / "w.py").write_text("def get_config():\n  return {'a': 1}\n")
  with pytest.raises(config_lib.ConfigError, match="has no variants"):
    config_lib.load(f"{tmp_path / 'w.py'}:tiny")
  assert config_lib.load(str(tmp_path / "w.py")).a == 1
  (tmp_path / "v.py").write_text("x = 1\n")
  with pytest.raises(config_lib.ConfigError, match="no function get_config"):
    config_lib.load(str(tmp_path / "v.py"))


def test_loaded_config_is_locked_and_names_the_near_key(path):
  config = config_lib.load(path)
  with pytest.raises((AttributeError, KeyError), match="steps"):
    config.stage.a.stepz = 3
  with pytest.raises(AttributeError, match="Did you mean"):
    _ = config.stage.a.stepz


def test_override(path):
  config = config_lib.load(path)
  new = config_lib.override(
    config,
    [
      "stage.a.steps=200",
      "stage.a.lr=1",
      "stage.a.clip=0.5",
      "stage.a.on=false",
      "stages=('a',)",
      "name=7",
    ],
  )
  assert new.stage.a.steps == 200 and config.stage.a.steps == 100
  assert new.stage.a.lr == 1.0 and isinstance(new.stage.a.lr, float)
  assert new.stage.a.clip == 0.5 and new.stage.a.on is False
  assert new.stages == ("a",) and new.name == "7"
  assert config_lib.override(config, ["stages=b"]).stages == ("b",)
  assert config_lib.override(config, ["stages=b,a"]).stages == ("b", "a")
  with pytest.raises((AttributeError, KeyError)):
    new.stage.a.other = 1


@pytest.mark.parametrize(
  "text, value",
  [
    ("mult=1,4,4", (1, 4, 4)),
    ("mult=[1, 4]", (1, 4)),
    ("mult=3", (3,)),
    ("mult=()", ()),
    ("scale=1,2.5", (1.0, 2.5)),
    ("levels=1,2", (1, 2)),
    ("levels=a,b", ("a", "b")),
    ("levels=", ()),
    ("grid=((1,2,3),)", ((1, 2, 3),)),
    ("stages=[a, b]", ("a", "b")),
    ("stages=('a','b c')", ("a", "b c")),
    ("stages=7,8", ("7", "8")),
    ("stages=()", ()),
  ],
)
def test_lists_on_the_command_line(path, text, value):
  new = config_lib.override(config_lib.load(path), [text])
  found = new[text.partition("=")[0]]
  assert (found, [type(v) for v in found]) == (value, [type(v) for v in value])


@pytest.mark.parametrize(
  "text, message",
  [
    ("stage.a.stepz=3", "no key 'stage.a.stepz'. Did you mean 'stage.a.steps'"),
    ("stage.a=3", "'stage.a' is a section"),
    ("stage.a.steps=many", "got 'many', wanted a whole number like 100"),
    ("stage.a.on=1", "wanted True or False"),
    ("stage.a.steps", "wanted key=value"),
    ("stage.a.steps=1e3", "got '1e3', wanted a whole number like 100"),
    ("stage.a.steps=True", "wanted a whole number like 100"),
    ("stage.a.lr=True", "wanted a number like 0.001"),
    ("stage.a.lr=1e999", "got '1e999', wanted a number like 0.001"),
    ("stage.a.lr=nan", "wanted a number like 0.001"),
    ("stage.a.lr={'start': 1}", "wanted a number like 0.001"),
    ("stage.a.clip={1}", "'stage.a.clip'|holds a set"),
    ("mult=1 2 4", r"got '1 2 4', wanted a list, each entry a whole number"),
    ("mult=1,2,x", r"got '1,2,x', wanted a list, each entry a whole number"),
    ("mult=", r"got '', wanted a list, each entry a whole number"),
    ("mult=1,2.5", "wanted a list, each entry a whole number"),
    ("mult=1,None", "wanted a list, each entry a whole number"),
    ("mult=(1,(2,))", "wanted a list, each entry a whole number"),
    ("scale=0.5,a", "wanted a list, each entry a number"),
    ("grid=((1,2),('a',4))", "wanted a list, each entry a list"),
    ("stages=('a',7)", "wanted a list, each entry a text"),
    ("stages=", "got '', wanted a list, each entry a text"),
  ],
)
def test_override_errors(path, text, message):
  with pytest.raises(config_lib.ConfigError, match=message):
    config_lib.override(config_lib.load(path), [text])


def test_split_args():
  ours, rest = config_lib.split_args(
    ["--config=configs/x.py:a", "--config.stage.a.steps=2", "--workdir=w"]
  )
  assert ours == ["stage.a.steps=2"]
  assert rest == ["--config=configs/x.py:a", "--workdir=w"]


def test_diff(path):
  config = config_lib.load(path)
  new = config_lib.override(config, ["stage.a.steps=200"])
  assert config_lib.diff(config, new) == "stage.a.steps: 100 -> 200"
  assert config_lib.diff(config, config) == ""
  text = config_lib.diff({"a": 1, "b": {"c": 2}}, {"a": 1, "d": "x"})
  assert text.split("\n") == ["b.c: removed 2", "d: added 'x'"]


def test_only_plain_values():
  with pytest.raises(config_lib.ConfigError, match="key a.b holds a object"):
    config_lib.from_dict({"a": {"b": object()}})
