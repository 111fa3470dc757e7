"""The two nets that `unet_vs_diffusers` compares, each for its own process."""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax import to_diffusers
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.diffusion import samplers, schedules
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.weights import diffusers_models, diffusers_names

SIZES = {
  # For tests.
  "tiny": dict(
    channels=16,
    mult=(1,),
    res_blocks=1,
    attention_levels=(0,),
    heads=2,
    context_dim=8,
    groups=8,
  ),
  # The structure of "sd", for CPUs.
  "small": dict(channels=128, heads=4, context_dim=192),
  # Stable Diffusion 1; the paper's net but for its modulation, which diffusers
  # does not have.
  "sd": dict(context_dim=768),
}
TOKENS = {"tiny": 3, "small": 4, "sd": 77}
_RATE = 1e-4
_BETAS = (0.00085, 0.012)  # Stable Diffusion 1
_WARM = 2


@dataclasses.dataclass(frozen=True)
class Options:
  """What is measured; see the command's help."""

  size: str
  batch: int
  side: int
  dtype: str
  steps: int
  remat: str
  attention: str
  threads: int
  channels_last: bool
  compile: bool

  def net(self, **fields: Any) -> UNet:
    """Ours."""
    return UNet(in_channels=4, dtype=self.dtype, **SIZES[self.size], **fields)

  def inputs(self) -> dict[str, np.ndarray]:
    """The batch that both are given, NHWC."""
    draw = np.random.default_rng(0)
    latent = (self.batch, self.side, self.side, 4)
    tokens = (self.batch, TOKENS[self.size], SIZES[self.size]["context_dim"])
    arrays = {
      "noisy": draw.normal(size=latent),
      "noise": draw.normal(size=latent),
      "time": draw.integers(0, 1000, self.batch),
      "context": draw.normal(size=tokens),
    }
    return {k: np.asarray(v, np.float32) for k, v in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Denoising(recipe_lib.Recipe):
  """Predicts the noise; trained by the library's own step, with Adam."""

  net: UNet
  batch: dict[str, np.ndarray]

  def init(self, rng):
    noisy, time, context = (
      jnp.asarray(self.batch[name][:1]) for name in ("noisy", "time", "context")
    )
    return {"unet": self.net.init(rng, noisy, time, context)}

  def groups(self):
    return {"unet": recipe_lib.Group(("unet",), optim.make_tx("adam", _RATE))}

  def phases(self):
    return [recipe_lib.Phase("denoise", ("unet",), self.loss)]

  def batch_spec(self):
    return {
      name: batch_lib.Field(array.shape[1:])
      for name, array in self.batch.items()
    }

  def loss(self, params, ctx):
    batch = ctx.batch
    net = {"params": params["unet"]}
    predicted = self.net.apply(
      net, batch["noisy"], batch["time"], batch["context"]
    ).prediction
    loss = jnp.square(predicted - batch["noise"]).mean()
    return loss, recipe_lib.Aux()


def step_flops(recipe: Denoising, batch: Any) -> float:
  """Operations of a step, counted in the program before it is compiled."""
  state = jax.eval_shape(lambda: step_lib.init_state(recipe, jax.random.key(0)))
  step = jax.jit(step_lib.make_step(recipe), static_argnames="due")
  lowered = step.lower(state, {}, batch, due=("denoise",))
  return lowered.cost_analysis()["flops"]


class Ours:
  """The library's net."""

  def __init__(self, options: Options, folder: pathlib.Path):
    self.options = options
    batch = options.inputs()
    kernel = options.attention
    net = options.net(remat=options.remat, attention_kernel=kernel)
    self.recipe = Denoising(net, batch)
    self.batch = jax.device_put(batch)
    self.state = jax.jit(
      lambda: step_lib.init_state(self.recipe, jax.random.key(0))
    )()
    self._write(net, folder)
    self.parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
    # As `train.py` compiles it.
    self.step = jax.jit(
      step_lib.make_step(self.recipe),
      static_argnames="due",
      donate_argnums=0,
    )
    schedule = schedules.make_schedule("scaled_linear", 1000, *_BETAS)

    @jax.jit
    def sample(params, noise, context):
      def predict(x, time):
        output = net.apply({"params": params}, x, time, context)
        return output.prediction

      return samplers.ddim(
        predict, noise, schedule, options.steps, spacing="leading"
      )

    self.sample_fn = sample
    self.losses = [self.train() for _ in range(_WARM)]

  def _write(self, net: UNet, folder: pathlib.Path) -> None:
    """The weights, for the other side to start from."""
    params = {"params": self.state.params["unet"]}
    rows = diffusers_names.table(diffusers_models.unet.naming(net), params)
    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    config = {
      "_class_name": diffusers_models.unet.cls,
      **diffusers_models.unet.options(net),
    }
    to_diffusers.write(diffusers_names.rename(flat, rows), config, folder)

  def train(self) -> float:
    """One step; the loss before it."""
    self.state, metrics, _ = self.step(
      self.state, {}, self.batch, due=("denoise",)
    )
    return float(metrics["denoise/loss"])

  def sample(self) -> float:
    """Samples once; the mean square of the outcome."""
    out = self.sample_fn(
      self.state.params["unet"], self.batch["noise"], self.batch["context"]
    )
    return float(jnp.square(out).mean())

  def facts(self) -> dict[str, Any]:
    """Of the net and the machine."""
    device = jax.local_devices()[0]
    return {
      "parameters": self.parameters,
      "losses": self.losses,
      "platform": device.platform,
      "device": device.device_kind,
      "train_flops": step_flops(self._plain(), self.batch),
    }

  def _plain(self) -> Denoising:
    """For counting: nothing computed anew, attention as plain products.

    Cost analysis sees nothing in kernels and one turn of a loop.
    """
    net = self.options.net(attention_kernel="xla")
    return dataclasses.replace(self.recipe, net=net)

  def matrix_rate(self) -> float:
    """Operations per second of the best of ten products of large matrices."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), self.options.dtype)
    product = jax.jit(jnp.matmul)
    times = []
    for _ in range(11):  # the first one compiles
      start = time.perf_counter()
      product(matrix, matrix).block_until_ready()
      times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)

  def memory(self) -> int:
    """Most bytes in use so far, on a GPU."""
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


class Theirs:
  """diffusers' net in PyTorch.

  Raises:
    ImportError: torch or diffusers is not installed, or sees no GPU.
  """

  def __init__(self, options: Options, folder: pathlib.Path, platform: str):
    import diffusers
    import torch

    self.options, self.torch = options, torch
    self.device = "cpu"
    if platform != "cpu":
      if not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
      self.device = "cuda"
    torch.set_num_threads(options.threads)
    # JAX's products of float32 on a GPU.
    torch.set_float32_matmul_precision("high")
    self.dtype = getattr(torch, options.dtype)
    net = diffusers.UNet2DConditionModel.from_pretrained(
      folder, low_cpu_mem_usage=False
    )
    layout = torch.contiguous_format
    if options.channels_last:
      layout = torch.channels_last
    self.net = net.train().to(self.device, memory_format=layout)
    self.run = torch.compile(self.net) if options.compile else self.net
    self.optimizer = torch.optim.Adam(
      self.net.parameters(), lr=_RATE, fused=True
    )
    self.batch = {
      name: torch.from_numpy(
        np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim == 4 else x)
      ).to(self.device)
      for name, x in options.inputs().items()
    }
    for name in ("noisy", "noise"):
      self.batch[name] = self.batch[name].to(memory_format=layout)
    self.scheduler = diffusers.DDIMScheduler(
      beta_start=_BETAS[0],
      beta_end=_BETAS[1],
      beta_schedule="scaled_linear",
      clip_sample=False,
      set_alpha_to_one=False,
      steps_offset=1,
    )
    self.losses = [self.train() for _ in range(_WARM)]

  def _mixed(self):
    """Weights stay float32, as ours do."""
    if self.dtype == self.torch.float32:
      return contextlib.nullcontext()
    return self.torch.autocast(self.device, self.dtype)

  def train(self) -> float:
    """One step; the loss before it."""
    batch = self.batch
    self.optimizer.zero_grad()
    with self._mixed():
      predicted = self.run(
        batch["noisy"], batch["time"], batch["context"]
      ).sample
    loss = self.torch.square(predicted.float() - batch["noise"]).mean()
    loss.backward()
    self.optimizer.step()
    return float(loss.detach())

  def sample(self) -> float:
    """Samples once; the mean square of the outcome."""
    x, context = self.batch["noise"], self.batch["context"]
    self.scheduler.set_timesteps(self.options.steps)
    with self.torch.no_grad(), self._mixed():
      for t in self.scheduler.timesteps:
        predicted = self.run(x, t.to(self.device), context).sample
        x = self.scheduler.step(predicted.float(), t, x).prev_sample
    return float(self.torch.square(x).mean())

  def facts(self) -> dict[str, Any]:
    """Of the net."""
    return {
      "parameters": sum(p.numel() for p in self.net.parameters()),
      "losses": self.losses,
    }

  def memory(self) -> int:
    """Most bytes in use so far, on a GPU."""
    return self.torch.cuda.max_memory_allocated()
