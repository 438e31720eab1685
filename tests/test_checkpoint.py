"""Checkpoints: any mesh to any mesh, fall-back, refusals, policies, full disk."""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import shutil
import subprocess

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from tests.loop_helpers import MODEL, ONE_DEVICE, leaves, make_run, make_spec
from xlmjax.data.vocabulary import UntrainedVocabulary
from xlmjax.parallel.mesh import MeshConfig
from xlmjax.storage_errors import (
    CheckpointError,
    DamagedError,
    StorageError,
    reading,
)
from xlmjax.training import checkpoint, fingerprint, initialization
from xlmjax.training.checkpoint import Checkpoints, Identity
from xlmjax.training.checkpoint_settings import CheckpointConfig, higher_is_better
from xlmjax.training.fingerprint import checksums

IDENTITY = Identity(dataclasses.asdict(MODEL), "0123456789abcdef", "adamw")
FOUR_TWO = MeshConfig(data=4, fsdp=2)
TWO_FOUR = MeshConfig(data=2, fsdp=4)


@pytest.fixture(scope="module")
def trained():
    """A state after three steps on a mesh of (4, 2) devices, and what it does next."""
    run = make_run(FOUR_TWO)
    for step in range(3):
        run.update(step)
    run.initial = jax.device_get(run.state)
    losses = [float(run.update(step).loss) for step in (3, 4)]
    run.reset()
    return run, losses


def open_checkpoints(workdir, identity=IDENTITY, **fields):
    return Checkpoints(workdir, CheckpointConfig(**fields), identity)


def at_step(run, step):
    """The state as if it were of another step."""
    return dataclasses.replace(
        run.state, step=jax.device_put(np.int32(step), run.state.step.sharding)
    )


def save_steps(run, workdir, steps, **fields):
    checkpoints = open_checkpoints(workdir, **fields)
    for step in steps:
        checkpoints.save(at_step(run, step))
    checkpoints.close()


@pytest.mark.parametrize("mesh", [TWO_FOUR, ONE_DEVICE, MeshConfig(data=2, fsdp=2, tensor=2)])
def test_a_checkpoint_continues_on_another_mesh(trained, tmp_path, mesh):
    run, losses = trained
    save_steps(run, tmp_path, [3])
    other = make_run(mesh)
    checkpoints = open_checkpoints(tmp_path)
    other.state = checkpoints.restore(other.spec)
    for name, value in leaves(run.state).items():
        np.testing.assert_array_equal(leaves(other.state)[name], value, err_msg=name)
    wanted = jax.tree.leaves(other.spec.shardings)
    for leaf, sharding in zip(jax.tree.leaves(other.state), wanted, strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    continued = [float(other.update(step).loss) for step in (3, 4)]
    np.testing.assert_allclose(continued, losses, rtol=1e-5)
    checkpoints.close()


def test_an_empty_workdir_has_nothing_to_restore(tmp_path):
    assert open_checkpoints(tmp_path).restore(make_spec()[1]) is None


@pytest.mark.parametrize("shape", [(1003, 7), (36, 25, 10), (32771,), (3, 1000), (5, 0), ()])
def test_a_checksum_taken_piece_by_piece_is_the_same(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    assert int(fingerprint._checksum(x, 4096)) == int(fingerprint._checksum(x))


def test_checksums_depend_on_every_bit_and_not_on_the_mesh(trained):
    run, _ = trained
    expected = checksums(run.state)
    one = make_run()
    one.state = jax.tree.map(jax.device_put, jax.device_get(run.state), one.spec.shardings)
    assert checksums(one.state) == expected
    values = jax.device_get(run.state)
    table = values.model.embeddings.tokens.get_value().copy()
    table.view(np.uint32)[7, 3] ^= 1
    values.model.embeddings.tokens.set_value(table)
    changed = checksums(values)
    assert {name for name in expected if changed[name] != expected[name]} == {
        "model/embeddings/tokens"
    }
    swapped = table.copy()
    swapped[[1, 2]] = swapped[[2, 1]]
    assert checksums({"x": swapped}) != checksums({"x": table})


def largest_files(place):
    """Those that hold most of the arrays: one of each folder, not all of which are read again."""
    for folder in (place / "state").rglob("d"):
        yield max(folder.iterdir(), key=lambda file: file.stat().st_size)


def damage_cut(place):
    for file in largest_files(place):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_flip(place):
    """One bit in the middle of the arrays, which nothing but a checksum of ours notices."""
    for file in largest_files(place):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 16
        file.write_bytes(bytes(data))


def damage_remove(place):
    shutil.rmtree(place / "state")


def damage_metadata(place):
    (place / "metadata" / "metadata").write_text('{"format": 1, "mod')


def damage_field(place):
    file = place / "metadata" / "metadata"
    file.write_text(file.read_text().replace('"checksums"', '"checksuns"'))


def damage_name(place):
    file = place / "state" / "_METADATA"
    file.write_text(file.read_text().replace("positions", "position3"))


@pytest.mark.parametrize(
    "damage",
    [damage_cut, damage_flip, damage_remove, damage_metadata, damage_field, damage_name],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(trained, tmp_path, damage, caplog):
    run, _ = trained
    save_steps(run, tmp_path, [2, 3])
    damage(tmp_path / "checkpoints" / "3")
    checkpoints = open_checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING):
        state = checkpoints.restore(run.spec)
    assert int(state.step) == 2
    assert "checkpoints/3 IS DAMAGED" in caplog.text
    assert (tmp_path / "checkpoints" / "corrupt-3").is_dir()
    checkpoints.save(at_step(run, 3))  # the step that was damaged is free again
    checkpoints.wait()
    assert checkpoints.steps == [2, 3]
    assert int(checkpoints.restore(run.spec).step) == 3
    checkpoints.close()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_quietly_begin_again(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path, [2, 3])
    for step in ("2", "3"):
        damage_metadata(tmp_path / "checkpoints" / step)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact: .*3/metadata"):
            open_checkpoints(tmp_path).restore(run.spec)


def raised(error, cause=None, context=None):
    """An error as Python leaves it behind `raise error from cause`, or while handling another."""
    error.__cause__, error.__context__ = cause, context
    return error


def wrapped(text):
    """As Orbax passes on what TensorStore raised for an array."""
    return raised(Exception("Encountered error while reading array index"), ValueError(text))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("metadata not found"), DamagedError),
        (json.JSONDecodeError("Expecting value", "", 0), DamagedError),
        (KeyError("chunk_shape"), DamagedError),
        (ValueError("DATA_LOSS: Error decoding local file"), DamagedError),
        (ValueError('Error opening "zarr" driver: expected object'), DamagedError),
        (wrapped("FAILED_PRECONDITION: Truncated Zstd-compressed stream"), DamagedError),
        (wrapped("OUT_OF_RANGE: Requested byte range [0, 9)"), DamagedError),
        (TimeoutError("no answer"), StorageError),
        (OSError(errno.ECONNRESET, "Connection reset by peer"), StorageError),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), StorageError),
        (OSError(errno.EIO, "Input/output error"), StorageError),
        (ValueError("ABORTED: All 32 retry attempts failed: Too Many Requests"), StorageError),
        (wrapped("UNAVAILABLE: [http_response_code='503']"), StorageError),
        (ValueError("RESOURCE_EXHAUSTED: Quota exceeded"), StorageError),
        (raised(ValueError("no array"), cause=TimeoutError("no answer")), StorageError),
        (raised(TimeoutError("no answer"), context=KeyError("cache")), StorageError),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: a program"), StorageError),
        (RuntimeError("nobody has seen this one"), StorageError),
        (PermissionError(errno.EACCES, "Permission denied"), CheckpointError),
        (wrapped("PERMISSION_DENIED: Forbidden [http_response_code='403']"), CheckpointError),
        (MemoryError(), CheckpointError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), CheckpointError),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), CheckpointError),
        (raised(RuntimeError("reading"), cause=MemoryError()), CheckpointError),
    ],
)
def test_only_evidence_of_damage_is_damage(error, kind):
    with pytest.raises(CheckpointError) as e, reading(epath.Path("/w/3/state")):
        raise error
    assert type(e.value) is kind


@pytest.mark.parametrize("handler", [ocp.JsonCheckpointHandler, ocp.PyTreeCheckpointHandler])
@pytest.mark.parametrize(
    ("problem", "kind", "words"),
    [
        (TimeoutError("no answer"), StorageError, "no answer.*run the same command again"),
        (wrapped("ABORTED: try later"), StorageError, "try later.*run the same command again"),
        (PermissionError(errno.EACCES, "denied"), CheckpointError, "denied.*Allow it and run"),
        (MemoryError("4 GiB"), CheckpointError, "4 GiB. Memory ran out: raise mesh.fsdp"),
    ],
)
def test_a_checkpoint_that_could_not_be_read_this_time_stays(
    trained, tmp_path, monkeypatch, handler, problem, kind, words
):
    run, _ = trained
    save_steps(run, tmp_path, [1, 2, 3])
    damage_metadata(tmp_path / "checkpoints" / "3")
    checkpoints = open_checkpoints(tmp_path)

    def restore_or_fail(self, folder, *args, **kwargs):
        if folder.parent.name == "2":
            raise problem
        return restore(self, folder, *args, **kwargs)

    part = "metadata" if handler is ocp.JsonCheckpointHandler else "state"
    place, restore = tmp_path / "checkpoints", handler.restore
    monkeypatch.setattr(handler, "restore", restore_or_fail)
    with pytest.raises(CheckpointError, match=f"{place}/2/{part} cannot be read: .*{words}") as e:
        checkpoints.restore(run.spec)
    assert type(e.value) is kind
    assert sorted(path.name for path in place.iterdir()) == ["1", "2", "3"]
    monkeypatch.undo()
    assert int(checkpoints.restore(run.spec).step) == 2
    checkpoints.close()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (None, DamagedError("x"), DamagedError),
        (DamagedError("x"), StorageError("y"), StorageError),
        (StorageError("y"), DamagedError("x"), StorageError),
        (StorageError("y"), CheckpointError("z"), CheckpointError),
        (None, ValueError("of another run"), ValueError),
        (DamagedError("x"), None, DamagedError),
    ],
)
def test_all_processes_raise_the_gravest_of_their_problems(monkeypatch, ours, theirs, expected):
    """Above all none takes for damaged, and moves, what another could not reach."""
    told = []

    def read(problem):
        if problem is not None:
            raise problem

    def tell(name, value, **kwargs):
        told.append(value)
        return [value]

    monkeypatch.setattr(checkpoint.distributed, "exchange", tell)
    for problem in (ours, theirs):
        with contextlib.suppress(CheckpointError, ValueError):
            checkpoint._together(functools.partial(read, problem))
    monkeypatch.setattr(checkpoint.distributed, "exchange", lambda *args, **kwargs: told)
    for problem, other in ((ours, theirs), (theirs, ours)):
        words = problem if type(problem) is expected else f"on another process: {other}"
        with pytest.raises(expected, match=f"^{words}$") as e:
            checkpoint._together(functools.partial(read, problem))
        assert type(e.value) is expected


def test_a_half_written_checkpoint_is_swept_away(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path, [3])
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp-17")
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.steps == [3]
    assert int(checkpoints.restore(run.spec).step) == 3
    checkpoints.save(at_step(run, 4))
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["3", "4"]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (
            dataclasses.replace(
                IDENTITY, model=IDENTITY.model | {"embed_dim": 32, "num_layers": 4}
            ),
            "model.embed_dim is 16 there and 32 here; model.num_layers is 2 there and 4 here",
        ),
        (
            dataclasses.replace(IDENTITY, vocabulary="ffff"),
            "vocabulary is '0123456789abcdef' there and 'ffff' here",
        ),
        (dataclasses.replace(IDENTITY, optimizer="lion"), "optimizer.name is 'adamw' there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(trained, tmp_path, identity, message):
    run, _ = trained
    save_steps(run, tmp_path, [3])
    with pytest.raises(ValueError, match=message):
        open_checkpoints(tmp_path, identity).restore(run.spec)
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_dropout_and_precision_may_change(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path, [3])
    model = IDENTITY.model | {"dropout": 0.3, "dtype": "bfloat16", "remat": "full"}
    free = open_checkpoints(tmp_path, dataclasses.replace(IDENTITY, model=model))
    assert int(free.restore(run.spec).step) == 3
    free.close()


def test_the_latest_every_nth_and_the_best_are_kept(trained, tmp_path):
    run, _ = trained
    metric = "eval/perplexity/mlm/average/loss"
    fields = {"every": 1, "keep": 2, "keep_every": 4, "best_metric": metric, "keep_best": 2}
    checkpoints = open_checkpoints(tmp_path, **fields)
    scores = {1: 3.0, 2: 1.0, 3: 2.0, 5: 4.0}  # not every step is evaluated
    for step in range(1, 8):
        values = {metric: scores[step]} if step in scores else {}
        checkpoints.save(at_step(run, step), values)
    checkpoints.wait()
    assert checkpoints.steps == [2, 3, 4, 6, 7]
    assert checkpoints.best_step == 2
    checkpoints.close()
    again = open_checkpoints(tmp_path, **fields)
    again.save(at_step(run, 8), {metric: 0.5})
    again.close()
    assert again.steps == [2, 4, 7, 8]


def test_of_a_score_the_highest_are_kept(trained, tmp_path):
    run, _ = trained
    metric = "eval/mt/average/bleu"
    fields = {"every": 1, "keep": 1, "best_metric": metric, "keep_best": 2}
    checkpoints = open_checkpoints(tmp_path, **fields)
    for step, score in enumerate([10.0, 30.0, 20.0, 25.0, 5.0], 1):
        checkpoints.save(at_step(run, step), {metric: score})
    checkpoints.wait()
    assert checkpoints.steps == [2, 4, 5]
    assert checkpoints.best_step == 2
    checkpoints.close()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("eval/a/mlm.en/loss", False),
        ("eval/a/mlm/average/perplexity", False),
        ("eval/a/mlm.en/bits_per_byte", False),
        ("eval/a/average/accuracy", True),
        ("eval/a/average/accuracy_csls_forward", True),
        ("eval/a/en_fr/precision_at_1", True),
        ("eval/a/mt.en_de/bleu", True),
        ("eval/a/average/tokenised_bleu", True),
        ("eval/a/average/chrf", True),
    ],
)
def test_the_name_of_a_metric_tells_which_end_is_best(metric, expected):
    assert higher_is_better(metric) is expected


@pytest.mark.parametrize("metric", ["eval/a/l2_pairs", "eval/loss/x", "eval/a/loss_accuracy"])
def test_a_metric_of_which_no_end_is_known_to_be_best_is_refused(metric):
    with pytest.raises(ValueError, match=rf"best_metric='{metric}': whether the lowest or"):
        CheckpointConfig(best_metric=metric)


def test_a_best_metric_that_its_evaluator_does_not_give_is_refused(trained, tmp_path):
    run, _ = trained
    checkpoints = open_checkpoints(tmp_path, best_metric="eval/a/loss")
    with pytest.raises(
        ValueError, match=r"best_metric='eval/a/loss' is not what config.evals.a .*/c"
    ):
        checkpoints.save(run.state, {"eval/a/c": 1.0, "eval/x/d": 2.0})
    checkpoints.close()


@pytest.mark.parametrize(
    ("problem", "words", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", "Make room and run"),
        (PermissionError(errno.EACCES, "Permission denied"), ".*denied", "Allow it and run"),
        (ValueError("PERMISSION_DENIED: no access"), ".*no access", "Allow it and run"),
        (ValueError("UNAVAILABLE: try later"), "ValueError: UNAVAILABLE: try later", "Run"),
        (TimeoutError("no answer"), "TimeoutError: no answer", "Run"),
    ],
)
def test_a_save_that_fails_leaves_the_checkpoint_before_intact(
    trained, tmp_path, monkeypatch, problem, words, remedy
):
    """It tells what to do, and by its kind whether starting again may do."""
    run, _ = trained
    save_steps(run, tmp_path, [2])
    checkpoints = open_checkpoints(tmp_path)

    async def fail(*args, **kwargs):
        raise problem

    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointHandler, "async_save", fail)

    def save_and_wait():
        checkpoints.save(run.state)
        checkpoints.wait()

    with pytest.raises(
        CheckpointError, match=rf"{words}\); checkpoint 2 is intact. {remedy} "
    ) as e:
        save_and_wait()
    assert isinstance(e.value, StorageError) == (remedy == "Run")
    monkeypatch.undo()
    assert int(open_checkpoints(tmp_path).restore(run.spec).step) == 2


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 4 MB."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True
    )
    if made.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_really_full_disk_does_too(trained, tiny_disk):
    run, _ = trained
    save_steps(run, tiny_disk, [2])
    room = shutil.disk_usage(tiny_disk).free
    (tiny_disk / "ballast").write_bytes(bytes(room - 80_000))
    checkpoints = open_checkpoints(tiny_disk)

    def save_and_wait():
        checkpoints.save(run.state)
        checkpoints.wait()

    with pytest.raises(CheckpointError, match=r"the disk is full\); checkpoint 2 is intact"):
        save_and_wait()
    (tiny_disk / "ballast").unlink()
    again = open_checkpoints(tiny_disk)
    assert int(again.restore(run.spec).step) == 2
    again.save(run.state)
    again.close()
    assert again.steps == [2, 3]


def test_init_from_takes_parameters_by_name_and_shape_and_reports(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path, [3])
    model = dataclasses.replace(MODEL, language_ids=(4, 5, 6), tie_embeddings=False, mlp_dim=32)
    fresh = make_run(MeshConfig(data=1, fsdp=2, tensor=2), model=model)
    loaded, report = initialization.load_parameters(
        epath.Path(tmp_path / "checkpoints" / "3"),
        fresh.state.model,
        Identity(dataclasses.asdict(model), IDENTITY.vocabulary, "lion"),
        renames=((r"head/(bias)", r"head/\1"), (r"embeddings/tokens", "head/table")),
    )
    there, before, after = leaves(run.state.model), leaves(fresh.state.model), leaves(loaded)
    assert report.renamed == (("embeddings/tokens", "head/table"),)
    np.testing.assert_array_equal(after["head/table"], there["embeddings/tokens"])
    assert "embeddings/tokens" in report.fresh
    np.testing.assert_array_equal(after["embeddings/tokens"], before["embeddings/tokens"])
    wide = "transformer/layers/mlp/wi/kernel"
    assert wide in report.fresh
    assert wide in report.skipped
    query = "transformer/layers/attention/query/kernel"
    assert query in report.loaded
    np.testing.assert_array_equal(after[query], there[query])
    languages = after["embeddings/languages"]
    np.testing.assert_array_equal(languages[[0, 2]], there["embeddings/languages"])
    np.testing.assert_array_equal(languages[1], before["embeddings/languages"][1])
    assert "renamed (embeddings/tokens -> head/table)" in str(report)
    for leaf, other in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(fresh.state.model), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(other.sharding, leaf.ndim)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("embeddings/(", 0.1), r"'embeddings/\(', 0.1\) is no \(regex, size\) \(missing \), "),
        (("embeddings/.*",), r"is no \(regex, size\) \(not enough values"),
        (("embeddings/.*", "small"), r"has size 'small': give a number above 0"),
        (("embeddings/.*", 0.0), r"has size 0.0: give a number above 0"),
        (("embeddings/.*", float("nan")), r"has size nan: give a number above 0"),
    ],
)
def test_a_rule_of_sizes_that_is_none_is_refused(rule, message):
    with pytest.raises(ValueError, match=rf"checkpoint.init_rms: .*{message}"):
        CheckpointConfig(init_from="runs/mlm", init_rms=(rule,))


def test_sizes_of_no_checkpoint_are_refused():
    with pytest.raises(ValueError, match=r"init_rms=.*: name this one in checkpoint.init_from"):
        CheckpointConfig(init_rms=(("embeddings/.*", 0.1),))


def test_the_order_of_what_a_run_starts_from(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path / "other", [3])

    def start(workdir, identity=IDENTITY, **fields):
        config = CheckpointConfig(**fields)
        checkpoints = Checkpoints(workdir, config, identity)
        key = jax.random.key(5)
        state, origin = initialization.initial_state(
            checkpoints, config, identity, run.spec, key, UntrainedVocabulary(60)
        )
        checkpoints.close()
        return state, origin

    scratch, origin = start(tmp_path / "a")
    assert origin == "fresh parameters"
    other = str(tmp_path / "other")
    table = "model/embeddings/tokens"
    state, origin = start(tmp_path / "b", init_from=other)
    assert int(state.step) == 0
    assert "0 renamed" not in origin
    np.testing.assert_array_equal(leaves(state)[table], leaves(run.state)[table])
    assert not leaves(state)["opt_state/adamw/mu/embeddings/tokens"].any()
    state, _ = start(tmp_path / "c", init_from=other, resume_from=other)
    assert int(state.step) == 3
    save_steps(run, tmp_path / "d", [7])
    state, origin = start(tmp_path / "d", resume_from=other)
    assert int(state.step) == 7
    with pytest.raises(ValueError, match=r"checkpoint.resume_from='.*nowhere' holds no checkpoint"):
        start(tmp_path / "e", resume_from=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is of vocabulary 0123456789abcdef, the run of ffff"):
        start(tmp_path / "f", dataclasses.replace(IDENTITY, vocabulary="ffff"), init_from=other)
    assert (leaves(scratch)[table] != leaves(run.state)[table]).any()


def test_a_checkpoint_says_what_it_is(trained, tmp_path):
    run, _ = trained
    save_steps(run, tmp_path, [3])
    metadata = json.loads((tmp_path / "checkpoints" / "3" / "metadata" / "metadata").read_text())
    assert metadata["model"]["embed_dim"] == 16
    assert metadata["vocabulary"] == IDENTITY.vocabulary
    assert set(metadata["checksums"]) == set(leaves(run.state))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every": 0}, "checkpoint.every=0 must be 1 or more"),
        ({"every": 4, "keep_every": 6}, "checkpoint.keep_every=6 must be a multiple of"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**fields)


def test_a_checkpoint_from_before_a_field_existed_has_its_default():
    model = dataclasses.asdict(MODEL)
    old = {k: v for k, v in model.items() if k not in ("decoder_layers", "lora_rank", "pooling")}
    found = {
        "model": checkpoint.plain(old),
        "vocabulary": IDENTITY.vocabulary,
        "optimizer": "adamw",
    }
    assert IDENTITY.differences(found) == []
    other = dataclasses.replace(IDENTITY, model={**model, "decoder_layers": 2})
    assert other.differences(found) == ["model.decoder_layers is 0 there and 2 here"]
