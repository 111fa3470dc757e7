"""Order and augmentation: independent of hosts, exact after a restart."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines import loader, samplers


class Numbers:
  """A source whose example i is the number i."""

  def __init__(self, count):
    self.count = count

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return {"number": np.int32(index), "name": str(index)}


def _noise(example, rng):
  return {"number": example["number"], "noise": rng.random()}


def _global(hosts, start, steps, threads=2, transform=_noise):
  loaders = [
    loader.make_loader(
      Numbers(23), transform, 8, 3, start, host, hosts, threads
    )
    for host in range(hosts)
  ]
  out = []
  for _ in range(steps):
    parts = [next(one) for one in loaders]
    out.append(
      np.stack(
        [np.concatenate([p[n] for p in parts]) for n in ("number", "noise")]
      )
    )
  assert {one.position for one in loaders} == {start + steps}
  for one in loaders:
    one.close()
  return np.stack(out)


@pytest.fixture(scope="module")
def one_host():
  return _global(1, 0, 8)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_any_number_of_hosts_gives_the_same_batches(one_host, hosts):
  assert np.array_equal(_global(hosts, 0, 8), one_host)


@pytest.mark.parametrize(("hosts", "start"), [(1, 1), (1, 5), (4, 3), (2, 6)])
def test_resume_is_exact_on_any_number_of_hosts(one_host, hosts, start):
  assert np.array_equal(_global(hosts, start, 2), one_host[start : start + 2])


def test_threads_change_nothing(one_host):
  assert np.array_equal(_global(1, 0, 4, threads=0), one_host[:4])
  assert np.array_equal(_global(1, 0, 4, threads=8), one_host[:4])


def test_every_epoch_is_a_new_whole_order(one_host):
  numbers = one_host[:, 0].ravel()
  first, second = numbers[:23], numbers[23:46]
  assert sorted(first) == sorted(second) == list(range(23))
  assert not np.array_equal(first, second)


def test_augmentation_differs_between_epochs_and_examples(one_host):
  assert len(np.unique(one_host[:, 1])) == one_host[:, 1].size


def test_augmentation_does_not_depend_on_earlier_draws(one_host):
  # One transform that draws more must not shift the others.
  def greedy(example, rng):
    first = rng.random()
    if example["number"] % 2:
      rng.random(100)
    return {"number": example["number"], "noise": first}

  assert np.array_equal(_global(1, 0, 4, transform=greedy), one_host[:4])


def test_order_without_shuffling():
  one = loader.make_loader(Numbers(5), None, 3, 0, shuffle=False)
  assert next(one)["number"].tolist() == [0, 1, 2]
  batch = next(one)
  assert batch["number"].tolist() == [3, 4, 0]
  assert batch["name"] == ["3", "4", "0"]
  one.close()


def test_batches_larger_than_the_source():
  one = loader.make_loader(Numbers(3), None, 8, 0)
  assert next(one)["number"].shape == (8,)
  one.close()


def test_errors():
  with pytest.raises(ValueError, match="batch size 6 is not divisible by 4"):
    loader.make_loader(Numbers(9), None, 6, 0, process_count=4)
  with pytest.raises(ValueError, match="empty"):
    loader.make_loader(Numbers(0), None, 6, 0)


def test_uneven_shapes_are_named():
  def ragged(example, rng):
    return {"image": np.zeros(example["number"] + 1)}

  one = loader.make_loader(Numbers(4), ragged, 4, 0, num_threads=0)
  with pytest.raises(ValueError, match="field 'image' has shapes"):
    next(one)


def test_prefetch_keeps_order_and_position():
  mesh = Mesh(np.array(jax.devices()), ("data",))
  sharding = NamedSharding(mesh, PartitionSpec("data"))
  count = len(jax.devices())
  one = loader.make_loader(Numbers(40), None, count, 0, 2, shuffle=False)
  device = loader.prefetch_to_device(one, sharding, 3)
  assert device.position == 2
  batch = next(device)
  assert device.position == 3 and one.position == 5
  assert batch["number"].sharding == sharding and "name" not in batch
  first = np.arange(2 * count, 3 * count) % 40
  assert np.array_equal(batch["number"], first)
  assert np.array_equal(next(device)["number"], (first + count) % 40)
  device.close()


def test_prefetch_of_a_finite_iterator():
  batches = [{"x": np.full(2, i)} for i in range(3)]
  device = loader.prefetch_to_device(iter(batches), None, 5)
  assert [int(b["x"][0]) for b in device] == [0, 1, 2]
  assert device.position == 3


def test_pairs_are_of_one_person_and_repeatable():
  identities = [3, 3, 5, 5, 5, 9]
  pairs = samplers.IdentityPairs(identities, seed=1)
  drawn = [pairs(i) for i in range(200)]
  assert all(identities[i] == identities[j] and i != j for i, j in drawn)
  assert drawn == [samplers.IdentityPairs(identities, 1)(i) for i in range(200)]
  assert {i for pair in drawn for i in pair} == {0, 1, 2, 3, 4}
  assert drawn != [samplers.IdentityPairs(identities, 2)(i) for i in range(200)]
  with pytest.raises(ValueError, match="no identity has two examples"):
    samplers.IdentityPairs([1, 2, 3])


def test_pairs_treat_people_alike():
  identities = [0] * 2 + [1] * 20
  pairs = samplers.IdentityPairs(identities)
  share = np.mean([identities[pairs(i)[0]] == 0 for i in range(2000)])
  assert abs(share - 0.5) < 0.05


class People(Numbers):
  """Person 0 has one picture, person 1 has four."""

  def __getitem__(self, index):
    return {"identity": np.int32(index > 0), "place": np.int32(index)}

  def column(self, name):
    return np.asarray([int(self[i][name]) for i in range(len(self))])


def test_pair_source_prefixes_the_second_frame():
  source = samplers.PairSource(People(5))
  example = source[0]
  assert example["identity"] == example["pair_identity"] == 1
  assert example["place"] != example["pair_place"]


def test_balanced_source():
  source = samplers.BalancedSource(People(5))
  people = source.column("identity")
  assert people.mean() == 0.5 and len(source) == 8
  places = {int(source[i]["place"]) for i in range(len(source))}
  assert places == set(range(5))


def test_take_source():
  source = samplers.TakeSource(Numbers(5), 2)
  assert len(source) == 2 and source[1]["number"] == 1
  with pytest.raises(IndexError):
    source[2]
  with pytest.raises(ValueError, match="wanted 9 examples of a source of 5"):
    samplers.TakeSource(Numbers(5), 9)
