"""The command line, up to the training."""

import pytest
from absl import flags

from data_pipelines import prepare
from faceedit_jax import main, train
from faceedit_jax.core.errors import UserError

CONFIG = "configs/l2m_gan.py"


def run_main(folder, mode="train", overrides=(), config=CONFIG):
  """`main` with its flags set and put back."""
  saved = flags.FLAGS.flag_values_dict()
  line = [
    f"--config={config}",
    f"--workdir={folder}",
    f"--data_dir={folder}",
    f"--mode={mode}",
  ]
  try:
    main._parse(["main", *line])
    return main.run(overrides)
  finally:
    for name in ("config", "workdir", "data_dir", "mode"):
      flags.FLAGS[name].value = saved[name]


def test_mistakes_in_a_late_stage_show_before_data_are_drawn(
  tmp_path, root, monkeypatch
):
  monkeypatch.chdir(root)
  monkeypatch.setattr(
    prepare, "ensure", lambda *_: pytest.fail("data were drawn first")
  )
  with pytest.raises(UserError, match="references is 5, wanted 0 or 1 or 2"):
    run_main(tmp_path, overrides=["stage.gan.data.sampler.references=5"])


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_the_command_prepares_the_data_of_all_that_it_trains(
  tmp_path, root, mode, monkeypatch
):
  """Nets that only evaluate may learn from a set of their own."""
  made = []
  monkeypatch.chdir(root)
  monkeypatch.setattr(prepare, "ensure", lambda source, *_: made.append(source))
  monkeypatch.setattr(train, "run", lambda *_: True)
  assert run_main(tmp_path, mode) == 0
  sets = {"synthetic_heads_64_attributes"}
  if mode == "evaluate":
    sets.add("synthetic_heads_64_attributes_eval")
  assert {source.folder for source in made} == sets
