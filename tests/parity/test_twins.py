"""Options that no recording has: frames, noise, positions, parameterisations.

Each is held against a second writing of the published formulas
(tests/parity/twins.py), and that against the recording first.
"""

import jax
import numpy as np
import pytest

from faceedit_jax import diffusion
from faceedit_jax.weights import ldm as ldm_maps
from tests.parity import harness, ldm, run, schedules, twins

run.load_runners()


def recording(stem: str) -> harness.Case:
  return harness.load_case(twins.COPIES, stem)


@pytest.fixture
def draw(rng):
  return lambda *shape: rng.normal(size=shape).astype(np.float32)


@pytest.fixture
def lsd():
  return recording("slot__lsd_slot_encoder")


def test_the_second_lsd_is_the_official_one(lsd):
  recorded, config = lsd.outputs(), lsd.config
  tokens, maps = twins.lsd_slots(
    lsd.state("slot_attn"), recorded["feat"], None, config["iters"], 1
  )
  np.testing.assert_allclose(tokens, recorded["slots"], atol=1e-5)
  np.testing.assert_allclose(maps, recorded["attn"], atol=1e-5)


def lsd_clip(case, draw, learned: bool, **options) -> harness.Case:
  """The two pictures of the recording as two frames of one item."""
  features = case.outputs()["feat"].swapaxes(0, 1)
  state = case.state("slot_attn")
  noise = draw(1, options["slots"], 24)
  state["slot_mu"] = draw(1, options["slots"] if learned else 1, 24)
  if not learned:
    state["slot_log_sigma"] = 0.3 * draw(1, 1, 24)
  tokens, maps = twins.lsd_slots(
    state, features, noise, options["iters"], options["heads"]
  )
  # The second frame starts from the slots of the first.
  alone, _ = twins.lsd_slots(
    state, features[:, 1:], noise, options["iters"], options["heads"]
  )
  assert np.abs(alone[:, 0] - tokens[:, 1]).max() > 0.05
  arrays = {f"state/slot_attn/{k}": v for k, v in state.items()}
  arrays |= {"out/feat": features, "out/slots": tokens, "out/attn": maps}
  arrays["in/slot_noise"] = noise
  return twins.twin(case, arrays, T=2, batch=1, learn=learned, **options)


@pytest.mark.parametrize("learned", [False, True])
def test_frames_of_one_item(lsd, draw, learned):
  case = lsd_clip(lsd, draw, learned, slots=3, iters=2, heads=2)
  assert not twins.fault(case)
  # Told that they are two items, the runner gives other numbers.
  options = {"T": 1, "batch": 2}
  arrays = {
    f"out/{name}": value.swapaxes(0, 1)
    for name, value in case.outputs().items()
  }
  arrays["in/slot_noise"] = np.repeat(case.arrays["in/slot_noise"], 2, 0)
  assert "slots " in twins.fault(twins.twin(case, arrays, **options))


@pytest.fixture
def savi():
  return recording("slot__savi_slot_attention")


def savi_outputs(state, slots, inputs, iterations, heads) -> dict:
  out = {}
  for i in range(1, iterations + 1):
    found, maps = twins.savi_slots(state, slots, inputs, i, heads)
    out["out/slots" if i == iterations else f"out/slots_it{i}"] = found
  small = twins.savi_slots(state, 0.01 * slots, 0.01 * inputs, 1, heads)[0]
  return out | {"out/attn": np.stack(maps), "out/slots_small": small}


def test_the_second_savi_is_the_official_one(savi):
  arrays = savi.arrays
  out = savi_outputs(
    savi.state(), arrays["in/slots"], arrays["in/inputs"], 3, 1
  )
  for name, value in out.items():
    np.testing.assert_allclose(value, arrays[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("heads, mlp", [(2, 24), (1, None)])
def test_heads_and_the_mlp_of_savi(savi, draw, heads, mlp):
  state, dropped = savi.state(), ()
  if heads > 1:  # 2 of 4 features each, mixed into 4
    for letter, size in (("q", 16), ("k", 12), ("v", 12)):
      state[f"general_dense_{letter}_0.kernel"] = draw(size, 2, 4) / 3
    for gate in ("ir", "iz", "in"):
      state[f"GRU_0.GRUCell_0.{gate}.kernel"] = draw(4, 16) / 2
    mixing = "InvertedDotProductAttention_0.DenseGeneral_0"
    state[f"{mixing}.kernel"], state[f"{mixing}.bias"] = draw(2, 4, 4), draw(4)
  if mlp is None:
    state = {k: v for k, v in state.items() if not k.startswith("MLP_0.")}
    dropped = ("state/MLP_0.",)
  slots, inputs = (savi.arrays[f"in/{n}"] for n in ("slots", "inputs"))
  arrays = {f"state/{k}": v for k, v in state.items()}
  arrays |= savi_outputs(state, slots, inputs, 2, heads)
  dropped += ("out/",)
  options = {"heads": heads, "qkv": 8 if heads > 1 else None, "mlp": mlp}
  case = twins.twin(savi, arrays, dropped, iters=2, **options)
  assert not twins.fault(case)


@pytest.fixture
def decoder():
  return recording("slot__savi_broadcast_decoder")


def test_the_second_decoder_is_the_official_one(decoder):
  out = twins.savi_picture(
    decoder.state(), decoder.arrays["in/slots"], (2, 2, 1), False, "project_add"
  )
  for name, value in decoder.outputs().items():
    np.testing.assert_allclose(out[name], value, atol=1e-5, err_msg=name)


def place_table(kind: str, bases: int, height: int, width: int, draw):
  """What SAVi keeps as `pos_embedding`."""
  if kind == "discrete_1d":
    return np.tile(np.eye(width, dtype=np.float32), (1, height, 1, 1))
  axes = (np.linspace(-1, 1, height), np.linspace(-1, 1, width))
  grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
  if kind == "linear":
    return grid[None]
  mixtures = [2**i * np.eye(2) for i in range(bases)]
  drawn = draw(2, bases)
  mixtures = (
    drawn if kind == "gaussian_fourier" else np.concatenate(mixtures, 1)
  )
  angles = np.pi * grid @ mixtures
  return np.sin(np.concatenate([angles, angles + np.pi / 2], -1))[None]


@pytest.mark.parametrize(
  "kind, bases, early, join",
  [
    ("linear", 0, True, None),
    ("fourier", 3, False, None),
    ("gaussian_fourier", 5, True, None),
    ("discrete_1d", 0, False, None),
    ("fourier", 2, False, "concat"),
  ],
)
def test_pictures_of_slots(decoder, draw, kind, bases, early, join):
  """Five frames of three slots, on another grid and with other strides."""
  size, features, strides = 16, (7, 6), (1, 3)
  table = place_table(kind, bases, 3, 5, draw)
  state = {
    "PositionEmbedding_0.pos_embedding": table,
    "alpha_logits.kernel": draw(6, 1),
    "alpha_logits.bias": draw(1),
    "Readout_0.Dense_0.Dense_0.kernel": draw(6, 3) / 2,
    "Readout_0.Dense_0.Dense_0.bias": draw(3),
  }
  width = size + table.shape[-1] if join else size
  if not join:
    dense = "PositionEmbedding_0.dense_pe_0"
    state[f"{dense}.kernel"] = draw(table.shape[-1], size)
    state[f"{dense}.bias"] = draw(size)
  for i, out in enumerate(features):
    state[f"CNN_0.conv_{i}.kernel"] = draw(3, 3, width, out) / width**0.5
    state[f"CNN_0.conv_{i}.bias"] = draw(out)
    width = out
  slots = draw(1, 5, 3, size)
  found = twins.savi_picture(
    state, slots, strides, early, join or "project_add"
  )
  arrays = {f"state/{k}": v for k, v in state.items()} | {"in/slots": slots}
  arrays |= {f"out/{k}": v for k, v in found.items()}
  options = {"pe": kind, "bases": bases, "early": early, "ks": 3}
  options |= {"update_type": join} if join else {}
  case = twins.twin(
    decoder,
    arrays,
    ("state/", "out/"),
    batch=1,
    T=5,
    slots=3,
    res=[3, 5],
    feat=list(features),
    strides=list(strides),
    **options,
  )
  assert not twins.fault(case)
  # Every picture is compared, also those of the slots.
  wrong = twins.twin(case, {"out/rgb_slots": found["rgb_slots"] + 0.01})
  assert "rgb_slots 1.0" in twins.fault(wrong)


@pytest.fixture(scope="module")
def ddpm():
  """The recording of latent diffusion's loss, and what its net predicts."""
  case = recording("ldm__ddpm_loss")
  x0, noise, t = case.image("x0"), case.image("noise"), case["t"]
  net = ldm.official_unet(case.config, x0)
  variables = case.variables(
    net, ldm_maps.unet("self"), x0, t, prefix="model.diffusion_model."
  )
  schedule = diffusion.make_schedule("linear", 1000, 0.0015, 0.0195)
  x_t = schedule.q_sample(x0, noise, t)
  return case, harness.nchw(jax.jit(net.apply)(variables, x_t, t).prediction)


def ddpm_outputs(
  case, prediction, kind, norm, mix=0.0, logvar=None, simple=1.0, bound=0.3
) -> dict:
  """DDPM.p_losses of latent diffusion; LatentDiffusion's with a logvar."""
  betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
  alphas = 1 - betas
  bar = np.cumprod(alphas)
  before = np.append(1.0, bar[:-1])
  variance = (1 - mix) * betas * (1 - before) / (1 - bar) + mix * betas
  x0, noise = (
    case.arrays[f"in/{n}"].astype(np.float64) for n in ("x0", "noise")
  )
  t = case.arrays["in/t"]
  a, s = (np.sqrt(v[t])[:, None, None, None] for v in (bar, 1 - bar))
  x_t = a * x0 + s * noise
  target = {"eps": noise, "x0": x0, "v": a * noise - s * x0}[kind]
  error = prediction.astype(np.float64) - target
  error = np.abs(error) if norm == "l1" else error**2
  error = error.mean((1, 2, 3))
  with np.errstate(divide="ignore"):
    weights = {
      "eps": betas**2 / (2 * variance * alphas * (1 - bar)),
      "x0": 0.5 * np.sqrt(bar) / (2.0 * 1 - bar),
      "v": np.ones(1000),
    }[kind]
  weights[0] = weights[1]
  of_clean = betas * np.sqrt(before) / (1 - bar)
  of_noisy = (1 - before) * np.sqrt(alphas) / (1 - bar)
  at = lambda v: v[t][:, None, None, None]  # noqa: E731
  likelihood = error
  if logvar is not None:
    likelihood = error / np.exp(logvar[t]) + logvar[t]
  vlb = (weights[t] * error).mean()
  out = {
    "x_t": x_t,
    "q_post_mean": at(of_clean) * x0 + at(of_noisy) * x_t,
    "q_post_logvar": at(np.log(np.maximum(variance, 1e-20))),
    "loss_simple": error.mean(),
    "loss_vlb": vlb,
    "loss": simple * likelihood.mean() + bound * vlb,
  }
  if logvar is not None:
    out |= {"loss_gamma": likelihood.mean(), "logvar": logvar.mean()}
  return {f"out/{name}": value for name, value in out.items()}


def test_the_second_loss_is_the_official_one(ddpm):
  case, prediction = ddpm
  for name, value in ddpm_outputs(case, prediction, "eps", "l2").items():
    np.testing.assert_allclose(
      value, case.arrays[name], rtol=1e-4, atol=1e-5, err_msg=name
    )


def test_a_clean_picture_is_predicted(ddpm):
  case, prediction = ddpm
  out = ddpm_outputs(case, prediction, "x0", "l2", bound=2.0, simple=0.5)
  options = {"param": "x0", "vlb": 2.0, "simple": 0.5}
  made = twins.twin(case, out | {"out/pred": prediction}, **options)
  assert not twins.fault(made)
  # As noise it is another loss, and by a word nobody knows none at all.
  fault = twins.fault(twins.twin(made, {}, param="eps"))
  assert "loss_simple" in fault and "loss_vlb" in fault
  assert "'mu'" in twins.fault(twins.twin(made, {}, param="mu"))


def test_absolute_errors_velocity_and_another_variance(ddpm):
  case, prediction = ddpm
  schedule = diffusion.make_schedule("linear", 1000, 0.0015, 0.0195)
  tables = schedules.buffers(schedule, 0.25)
  state = {
    f"state/{name}": tables[name].astype(np.float32)
    for name in ("posterior_variance", "posterior_log_variance_clipped")
  }
  options = {"loss_type": "l1", "v_posterior": 0.25}
  for kind in ("eps", "v"):
    out = ddpm_outputs(case, prediction, kind, "l1", 0.25)
    made = twins.twin(case, state | out, parameterization=kind, **options)
    assert not twins.fault(made)
  # The recorded tables are those of another variance.
  fault = twins.fault(twins.twin(case, out, **options))
  assert "posterior_variance" in fault


def test_learned_variance_of_the_error(ddpm, draw):
  case, prediction = ddpm
  logvar = 0.5 * draw(1000)
  out = ddpm_outputs(case, prediction, "x0", "l2", logvar=logvar)
  options = {"parameterization": "x0", "learn_logvar": True}
  made = twins.twin(case, out | {"state/logvar": logvar}, **options)
  made.info["module_path"] = "ddpm.py: LatentDiffusion.p_losses"
  assert not twins.fault(made)


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["x0", "v"])
def test_slots_guide_another_prediction(shared, kind):
  case = harness.load_case(shared / "fixtures", "slot__slotdiffusion_unet")
  bar = case.state()["alphas_bar"].astype(np.float64)[case.arrays["in/t"]]
  a, s = (np.sqrt(v)[:, None, None, None] for v in (bar, 1 - bar))
  x0, noise = (case.arrays[f"in/{n}"] for n in ("x0", "noise"))
  target = x0 if kind == "x0" else a * noise - s * x0
  loss = np.square(case.outputs()["pred"] - target).mean()
  assert not twins.fault(twins.twin(case, {"out/loss": loss}, pred=kind))


@pytest.mark.shared
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_bound_of_a_diffusion_autoencoder(shared, variance):
  case = harness.load_case(shared / "fixtures", "latref__diffae_diffusion")
  arrays = {k: v.astype(np.float64) for k, v in case.arrays.items()}
  t = np.array([0, 300])
  x0, noise = arrays["in/x0"], arrays["in/noise"]
  bar, betas = arrays["out/ddpm_alphas_cumprod"], arrays["out/ddpm_betas"]

  def at(values):
    return np.reshape(values, (2, 1, 1, 1))

  x_t = at(np.sqrt(bar[t])) * x0 + at(np.sqrt(1 - bar[t])) * noise
  eps = 0.3 * x_t + 0.1 * np.sin(at(t) / 100) + 0.05 * np.cos(3 * x_t)
  clean = (x_t - at(np.sqrt(1 - bar[t])) * eps) / at(np.sqrt(bar[t]))
  clean = np.clip(clean, -1, 1) if case.config["clip"] else clean
  first, second = (
    at(arrays[f"out/ddpm_posterior_mean_coef{i}"][t]) for i in (1, 2)
  )
  small = at(arrays["out/ddpm_posterior_log_variance_clipped"][t])
  large = np.log(betas)
  large[0] = arrays["out/ddpm_posterior_log_variance_clipped"][0]
  log = small if variance == "fixed_small" else at(large[t])
  apart = first * (clean - x0)
  kl = 0.5 * (log - small - 1 + np.exp(small - log) + apart**2 * np.exp(-log))
  mean = first * clean + second * x_t

  def below(x):
    scaled = (x - mean) / np.exp(log / 2)
    return 0.5 * (
      1 + np.tanh(np.sqrt(2 / np.pi) * (scaled + 0.044715 * scaled**3))
    )

  mass = np.where(x0 > 0.999, 1.0, below(x0 + 1 / 255))
  mass = mass - np.where(x0 < -0.999, 0.0, below(x0 - 1 / 255))
  nats = np.where(at(t) == 0, -np.log(np.maximum(mass, 1e-12)), kl)
  left = 1 - bar[-1]
  prior = 0.5 * (left - 1 - np.log(left) + bar[-1] * x0**2)
  out = {
    "q_sample": x_t,
    "vb": nats.mean((1, 2, 3)) / np.log(2),
    "prior_bpd": prior.mean((1, 2, 3)) / np.log(2),
  }
  changed = {f"out/{k}": v for k, v in out.items()} | {"in/t": t}
  made = twins.twin(case, changed, model_var_type=variance)
  assert not twins.fault(made)
