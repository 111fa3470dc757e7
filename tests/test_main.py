"""The command line, up to the training."""

import pytest
from absl import flags

from data_pipelines import prepare
from faceedit_jax import main, train

CONFIG = "configs/l2m_gan.py"


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_the_command_prepares_the_data_of_all_that_it_trains(
  tmp_path, root, mode, monkeypatch
):
  """Nets that only evaluate may learn from a set of their own."""
  made = []
  monkeypatch.chdir(root)
  monkeypatch.setattr(prepare, "ensure", lambda source, *_: made.append(source))
  monkeypatch.setattr(train, "run", lambda *_: True)
  saved = flags.FLAGS.flag_values_dict()
  line = [
    f"--config={CONFIG}",
    f"--workdir={tmp_path}",
    f"--data_dir={tmp_path}",
    f"--mode={mode}",
  ]
  try:
    main._parse(["main", *line])
    assert main.run([]) == 0
  finally:
    for name in ("config", "workdir", "data_dir", "mode"):
      flags.FLAGS[name].value = saved[name]
  sets = {"synthetic_heads_64_attributes"}
  if mode == "evaluate":
    sets.add("synthetic_heads_64_attributes_eval")
  assert {source.folder for source in made} == sets
