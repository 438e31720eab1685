"""launch_tpu.sh, driven end to end against a stand-in cloud: tests/tpu_cloud.py."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import tpu_cloud

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = "launch_tpu.sh"
COMMANDS = ("create", "setup", "run", "status", "logs", "watch", "ssh", "delete")
TPU = ("--name=pod", "--project=my-project", "--zone=us-central2-b")
QUEUED = ("compute", "tpus", "queued-resources")
TRAIN = ["run", "--no-sync", "xlmjax", "train"]
WHERE = ["--project=my-project", "--zone=us-central2-b"]
NASTY = (
    "--config=demo",
    "--config.data.mixture=('mlm', \"tlm\")",
    "--config.a=$HOME `id` $(id) \\ \\n ! * ? ~ # ; & | < > {a,b} é",
    "",
    "two\nlines\tand a tab ",
    "it's",
    "%s %USER%",
)


class Cloud:
    """A repository with a remote, a home, and the stand-in cloud on PATH."""

    def __init__(self, folder: pathlib.Path):
        self.cloud = folder / "cloud"
        self.repository = folder / "repository"
        self.home = folder / "home"
        programs = folder / "programs"
        for place in (self.cloud, self.repository, self.home, programs):
            place.mkdir()
        tpu_cloud.install(programs)
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CLOUD": str(self.cloud),
            "LAUNCH_POLL_SECONDS": "0.1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        for role in ("AUTHOR", "COMMITTER"):
            self.environment |= {f"GIT_{role}_NAME": "x", f"GIT_{role}_EMAIL": "x@example.com"}
        shutil.copy(ROOT / SCRIPT, self.repository)
        (self.repository / "code.txt").write_text("committed")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.git("init", "--quiet", "--bare", str(folder / "remote"))
        self.git("remote", "add", "origin", str(folder / "remote"))
        self.git("push", "--quiet", "origin", "main")

    def git(self, *args):
        command = ["git", *args]
        done = subprocess.run(
            command, cwd=self.repository, env=self.environment, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def commit(self):
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        return self.git("rev-parse", "HEAD")

    def start(self, command, *args, tpu=TPU):
        """Start the launcher; flags in `args` come before any `--`."""
        return subprocess.Popen(
            ["bash", SCRIPT, command, *tpu, *args],
            cwd=self.repository,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command, *args, code=0, tpu=TPU):
        """Run the launcher to its end; returns stdout and stderr."""
        process = self.start(command, *args, tpu=tpu)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, (out, err)
        return out, err

    def plan(self, **fields):
        (self.cloud / "plan.json").write_text(json.dumps(fields))

    def calls(self, *verb):
        """Return the calls of gcloud so far, of a verb such as ("queued-resources", "create")."""
        path = self.cloud / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if not verb or tuple(call[2:4]) == verb]

    def worker(self, index=0, node="pod"):
        return self.cloud / "workers" / node / str(index)

    def finish(self, code, index=None):
        """End the runs: everywhere, or on one worker of the only slice."""
        place = self.cloud if index is None else self.worker(index)
        (place / "finish").write_text(str(code))

    def preempt(self, state="SUSPENDED"):
        """Take the machines away, with whatever ran there."""
        with tpu_cloud_state(self.cloud) as resources:
            resources["pod"]["states"] = [state]
        shutil.rmtree(self.cloud / "workers")

    def run_file(self, name, index):
        path = self.worker(index) / "xlmjax" / "run" / name
        return path.read_text() if path.exists() else ""

    def wait_for_steps(self):
        """Wait until both workers of the slice have made a step."""
        for index in range(2):
            eventually(lambda index=index: "step 5/100" in self.run_file("log", index))

    def wait_for_end(self):
        """Wait until both runs have ended and every process of them is gone."""
        for index in range(2):
            lock = self.worker(index) / "xlmjax" / "run" / "lock"
            command = ["flock", "--nonblock", str(lock), "true"]
            eventually(lambda index=index: self.run_file("exit", index))
            eventually(lambda command=command: subprocess.run(command).returncode == 0)

    def trained(self, index=0, node="pod"):
        """Return what `uv run` got on a worker, all starts one after another."""
        path = self.worker(index, node) / "uv-run"
        return path.read_text().split("\0")[:-1] if path.exists() else []


class tpu_cloud_state:  # noqa: N801
    """The resources of the cloud, to be changed under its lock."""

    def __init__(self, cloud):
        os.environ["CLOUD"] = str(cloud)
        tpu_cloud.CLOUD = cloud
        self.state = tpu_cloud._State()

    def __enter__(self):
        return self.state.__enter__()["resources"]

    def __exit__(self, *args):
        self.state.__exit__(*args)


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    made.finish(0)


@pytest.fixture
def pod(cloud):
    """A cloud where a TPU of two workers is there and set up."""
    cloud("create", "--type=v4-16", "--spot")
    cloud("setup")
    return cloud


def eventually(predicate, seconds=120):
    end = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


# Settings


def test_help_is_one_screen_and_names_every_command(cloud):
    out, _ = cloud("--help", tpu=())
    assert len(out.splitlines()) <= 40
    assert all(re.search(rf"^  {command}\b", out, re.MULTILINE) for command in COMMANDS)
    assert cloud("create", "--help")[0] == out


def test_everything_wrong_is_told_at_once_and_nothing_is_run(cloud):
    (cloud.repository / "code.txt").write_text("changed")
    wrong = ('--name=it\'s "x" y', "--zone=moon", "--slices=a[$(touch hacked)]", "--spto=1")
    _, err = cloud("setup", *wrong, "stray", code=2, tpu=())
    for message in (
        "--name='it's \"x\" y' is not possible: it looks like my-tpu",
        "--project is missing: give --project=my-project, or a line PROJECT=my-project",
        "--zone='moon' is not possible: it looks like us-central2-b",
        "--slices='a[$(touch hacked)]' is not possible",
        "--spto is unknown; known: --name",
        "'stray' is no flag",
        "uncommitted changes would not reach the workers",
    ):
        assert message in err
    assert not cloud.calls()
    assert not (cloud.repository / "hacked").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("create",), "--type is missing"),
        (("create", "--type=v5e-16"), "gcloud calls it v5litepod-16"),
        (
            ("create", "--type=v7x-16"),
            "through GKE, not the TPU API, and this script does not drive GKE",
        ),
        (("create", "--type=tpu7x-16", "--runtime=mine"), "--type='tpu7x-16': TPU7x (Ironwood) is"),
        (("watch", "--type=tpu7x-16", "--", "--workdir=w"), "--type='tpu7x-16': TPU7x (Ironwood)"),
        (("create", "--type=gpu7-16"), "--type='gpu7-16' is not possible: it looks like v4-32"),
        (("create", "--type=v9x-16"), "no known TPU software: give --runtime too"),
        (("create", "--type=v4-8", "--bucket=my-bucket"), "--bucket='my-bucket' is not possible"),
        (("run",), "run needs what xlmjax train gets"),
        (("run", "--", "--config=x"), "no workdir: give --bucket=gs://my-bucket, or --workdir"),
        (("watch", "--type=v4-8"), "no run is remembered to watch"),
        (("setup", "--commit=nowhere"), "--commit='nowhere' is no commit"),
        (("setup", "--", "x"), "setup takes no arguments"),
        (("ssh", "--worker=all"), "--worker=all needs a command"),
        (("ssh", "--slice=1"), "--slice='1' is not one of the 1"),
        (("logs", "--worker=all", "--follow"), "--follow is of one worker"),
        (("delete",), "delete asks on a terminal: give --yes"),
        (("status", "--env-file=nowhere"), "--env-file='nowhere' cannot be read"),
        (("status", "--lines"), "--lines needs a value"),
        (("crate",), "'crate' is no command; known: create setup"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(cloud, args, message):
    command, *rest = args
    _, err = cloud(command, *rest, code=2)
    assert message in err
    assert not cloud.calls()


@pytest.mark.parametrize("zone", ["us-central1-ai1a", "us-south1-ai1b"])
def test_zones_for_ai_are_zones(cloud, zone):
    assert f"--zone={zone} " in cloud("status", f"--zone={zone}", "--dry-run")[0]
    _, err = cloud("status", f"--zone={zone}1", code=2)
    assert f"--zone='{zone}1' is not possible" in err


@pytest.mark.parametrize("rest", [("--dry-run",), ("--", "x"), ("--spot", "--network", "net")])
def test_a_flag_is_no_value_of_the_flag_before_it(cloud, rest):
    _, err = cloud("create", "--type=v4-16", "--network", *rest, code=2)
    assert "--network needs a value; one that begins with -- is given as --network=VALUE" in err
    assert not cloud.calls()
    out, _ = cloud("create", "--type", "v4-16", "--network=--odd", "--dry-run")
    assert "--accelerator-type=v4-16" in out
    assert "--network=--odd" in out


def test_flags_win_over_the_env_file_and_its_other_values_are_never_shown(cloud):
    (cloud.home / "tpu.env").write_text(
        "# mine\nexport NAME=other\nPROJECT='my-project'\nZONE=us-east1-d\r\nTYPE=v6e-8\n"
        'SPOT="true"\nWANDB_API_KEY=hunter2\nSPTO=hunter3\n'
    )
    env_file = f"--env-file={cloud.home}/tpu.env"
    out, err = cloud("create", env_file, "--name=pod", "--dry-run", tpu=())
    assert "create pod --project=my-project --zone=us-east1-d --accelerator-type=v6e-8" in out
    assert "--runtime-version=v2-alpha-tpuv6e" in out
    assert "--spot" in out
    assert "no settings of the launcher: WANDB_API_KEY SPTO" in err
    assert "hunter" not in out + err


@pytest.mark.parametrize(
    "line", ["SPOT = true", "SPOT =true", "SPOT= true", "hunter2", "-X=hunter2"]
)
def test_a_line_of_the_env_file_that_sets_nothing_is_told_by_its_number_alone(cloud, line):
    (cloud.home / "tpu.env").write_text(
        f"\n  # mine\n \t\r\nTYPE=v4-16\n{line}\nNETWORK=\r\n{line}"
    )
    env_file = f"--env-file={cloud.home}/tpu.env"
    out, err = cloud("create", env_file, code=2)
    numbers = [line for line in err.splitlines() if "line 5" in line or "line 7" in line]
    assert numbers == err.splitlines()
    assert len(numbers) == 2
    assert f"{cloud.home}/tpu.env: line 5 is not NAME=VALUE" in err
    assert line not in out + err
    assert not cloud.calls()


# Creating and deleting


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("--type=v5litepod-16", "--spot"),
            "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=pod "
            "--spot",
        ),
        (
            ("--type=v4-16", "--slices=2", "--runtime=mine", "--network=net"),
            "--accelerator-type=v4-16 --runtime-version=mine --node-count=2 --node-prefix=pod "
            "--network=net",
        ),
    ],
)
def test_create_asks_once_and_waits(cloud, flags, expected):
    waiting = "WAITING_FOR_RESOURCES"
    cloud.plan(creations=[[waiting, waiting, "PROVISIONING", "ACTIVE"]])
    _, err = cloud("create", *flags)
    assert [line.split()[-1] for line in err.splitlines()] == [*(waiting, "PROVISIONING", "ACTIVE")]
    created = [*QUEUED, "create", "pod", *WHERE, *expected.split(), "--quiet"]
    assert cloud.calls("queued-resources", "create") == [created]
    _, err = cloud("create", *flags)
    assert "pod is there already: ACTIVE" in err
    assert cloud.calls("queued-resources", "create") == [created]


def test_create_tells_that_provisioning_failed(cloud):
    cloud.plan(creations=[["PROVISIONING", "FAILED"]])
    assert "pod was not provisioned" in cloud("create", "--type=v4-16", code=1)[1]
    assert "pod is FAILED and does not come back" in cloud("create", "--type=v4-16", code=1)[1]
    assert len(cloud.calls("queued-resources", "create")) == 1


def test_a_wait_outlasts_looks_that_fail(cloud):
    cloud.plan(creations=[["PROVISIONING", *["UNAVAILABLE"] * 3, "PROVISIONING", "ACTIVE"]])
    _, err = cloud("create", "--type=v4-16", "--attempts=3", "--poll=0.01")
    assert err.count("UNAVAILABLE") == 3
    assert err.splitlines()[-1].endswith("pod is ACTIVE")


@pytest.mark.parametrize("command", [("create",), ("watch", "--", "--workdir=w")])
def test_a_place_in_the_queue_that_cannot_be_asked_for_is_not_given_up(cloud, command):
    cloud.plan(creations=[["PROVISIONING", "UNAVAILABLE"]])
    name, *rest = command
    flags = ("--type=v4-16", "--attempts=2", "--poll=0.01")
    _, err = cloud(name, *flags, *rest, code=1)
    assert "the state of pod cannot be asked" in err
    assert "the same command goes on" in err
    assert "delete" not in err
    cloud.finish(0)
    with tpu_cloud_state(cloud.cloud) as resources:
        resources["pod"]["states"] = ["ACTIVE"]
    cloud(name, *flags, *rest)
    assert len(cloud.calls("queued-resources", "create")) == 1


def test_delete_removes_the_queued_resource_and_what_was_remembered(pod):
    remembered = pod.home / ".local/state/xlmjax/my-project/us-central2-b/pod"
    assert remembered.is_dir()
    pod("delete", "--yes")
    deletion = [*QUEUED, "delete", "pod", *WHERE, "--force", "--quiet"]
    assert pod.calls("queued-resources", "delete") == [deletion]
    assert not remembered.exists()
    assert "nothing to delete" in pod("delete", "--yes")[1]
    assert pod.calls("queued-resources", "delete") == [deletion]


@pytest.mark.parametrize("command", ["create", "setup", "status", "watch"])
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--type=v4-32", "--type='v4-32', but pod was created with 'v4-16'"),
        ("--spot=false", "--spot='false', but pod was created with 'true'"),
        ("--slices=2", "--slices='2', but pod was created with '1'"),
        ("--service-account=me@x", "--service-account='me@x', but pod was created with ''"),
    ],
)
def test_what_a_tpu_cannot_become_is_refused(cloud, command, flag, message):
    cloud("create", "--type=v4-16", "--spot")
    before = cloud.calls()
    rest = ("--", "--workdir=w") if command == "watch" else ()
    _, err = cloud(command, flag, *rest, code=2)
    assert f"{message}: leave it out, or delete pod and create it again" in err
    assert cloud.calls() == before
    cloud("delete", "--yes", flag)
    cloud("create", "--type=v4-32", flag)


def test_a_request_that_was_refused_is_not_remembered(cloud):
    cloud.plan(refused_types=["v4-17"])
    assert "INVALID_ARGUMENT" in cloud("create", "--type=v4-17", "--spot", code=1)[1]
    cloud("watch", "--type=v4-17", "--attempts=1", "--", "--workdir=w", code=1)
    assert "INVALID_ARGUMENT" in cloud("create", "--type=v4-17", code=1)[1]
    cloud("create", "--type=v4-16")
    assert "--spot" not in cloud.calls("queued-resources", "create")[-1]


def test_a_secret_of_the_env_file_is_not_remembered(cloud):
    (cloud.home / "tpu.env").write_text("TYPE=v4-16\nWANDB_API_KEY=hunter2\n")
    cloud("create", f"--env-file={cloud.home}/tpu.env")
    cloud("setup", f"--env-file={cloud.home}/tpu.env")
    kept = [path for path in (cloud.home / ".local").rglob("*") if path.is_file()]
    assert "settings" in {path.name for path in kept}
    assert not any(b"hunter2" in path.read_bytes() for path in kept)


# Setting up


def test_setup_installs_exactly_the_commit_on_every_worker_once(cloud):
    cloud.plan(workers=3)
    data = cloud.cloud / "bucket" / "data"
    (data / "stores").mkdir(parents=True)
    (data / "stores" / "store").write_text("tokens")
    commit = cloud.git("rev-parse", "HEAD")
    cloud("create", "--type=v4-16", "--slices=2")
    (cloud.repository / "code.txt").write_text("changed")
    for _ in range(2):
        cloud("setup", "--slices=2", f"--commit={commit[:8]}", "--data=gs://bucket/data/")
    for node in ("pod-0", "pod-1"):
        for index in range(3):
            home = cloud.worker(index, node)
            code = home / "xlmjax" / "code" / commit
            assert (code / "code.txt").read_text() == "committed"
            assert (code / "data" / "stores" / "store").read_text() == "tokens"
            sync = ["sync", "--quiet", "--python", "3.12", "--no-dev", "--group", "tpu"]
            assert (home / "uv-sync").read_text().split("\0")[:-1] == sync
            assert (home / "uv-folder").read_text() == f"{code}\n"


def test_setup_wants_a_clean_tree_and_a_commit_that_the_remote_has(pod):
    (pod.repository / "mine.py").write_text("new")
    assert "mine.py" in pod("setup", code=2)[1]
    commit = pod.commit()
    assert f"commit {commit} is on no remote branch" in pod("setup", code=2)[1]
    pod.git("push", "--quiet", "origin", "main")
    pod("setup")
    assert (pod.worker() / "xlmjax" / "code" / commit / "mine.py").exists()


@pytest.mark.parametrize("there", ["0.4.5", "0.13.90", None])
def test_setup_installs_the_uv_that_the_tests_cover_unless_it_is_there(cloud, there):
    [pinned] = re.findall(r"\bUV=(\S+)", (ROOT / SCRIPT).read_text())
    cloud.plan(uv=there or pinned)
    cloud("create", "--type=v4-16")
    cloud("setup")
    for index in range(2):
        asked = cloud.worker(index) / "curl"
        expected = f"-LsSf https://astral.sh/uv/{pinned}/install.sh\n"
        assert (asked.read_text() if asked.exists() else "") == (expected if there else "")
        uv = cloud.worker(index) / ".local" / "bin" / "uv"
        version = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True)
        assert version.stdout.split()[1] == pinned


def test_setup_keeps_the_current_commit_and_those_in_use(pod):
    place = pod.worker() / "xlmjax"

    def another_commit():
        commit = pod.commit()
        pod.git("push", "--quiet", "origin", "main")
        pod("setup")
        assert (place / "current").resolve() == (place / "code" / commit).resolve()
        return commit

    def kept():
        return {path.name for path in (place / "code").iterdir()}

    used = another_commit()
    assert kept() == {used}
    pod("run", "--", "--workdir=w")
    pod.wait_for_steps()
    unused = another_commit()
    assert kept() == {used, unused}
    current = another_commit()
    assert kept() == {used, current}
    pod.finish(0)
    pod.wait_for_end()
    current = another_commit()
    assert kept() == {current}


def test_a_worker_that_fails_is_named_and_setup_again_mends_it(cloud):
    cloud.plan(workers=3, ssh_fails={"pod/1": 255})
    cloud("create", "--type=v4-16")
    _, err = cloud("setup", code=1)
    assert "setup failed on: pod/1\n" in err
    assert "Command execution on worker 1 failed" in err
    assert "status failed on: pod/1\n" in cloud("run", "--", "--workdir=w", code=1)[1]
    assert not cloud.trained()
    cloud.plan(workers=3)
    cloud("setup")
    assert (cloud.worker(1) / "uv-sync").exists()


# Running


def test_run_is_detached_and_gets_its_arguments_exactly(pod):
    pod("run", "--bucket=gs://my-bucket", "--", *NASTY)
    expected = [*TRAIN, *NASTY, "--workdir=gs://my-bucket/pod"]
    for index in range(2):
        eventually(lambda index=index: pod.trained(index) == expected)
    pod.wait_for_steps()
    out, _ = pod("status")
    assert out.splitlines()[0] == "pod  ACTIVE"
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        *(["pod/0", "running"], ["pod/1", "running"])
    ]
    assert out.count("step 5/100: loss 1.0") == 2
    pod.finish(0, index=0)
    pod.finish(2, index=1)
    pod.wait_for_end()
    assert re.findall(r"ended \d", pod("status")[0]) == ["ended 0", "ended 2"]


def test_run_reaches_every_worker_of_every_slice(cloud):
    cloud.plan(workers=1)
    slices = "--slices=3"
    cloud("create", "--type=v4-8", slices)
    cloud("setup", slices)
    cloud("run", slices, "--", "--config=demo", "--workdir=w")
    for index in range(3):
        eventually(lambda index=index: "--config=demo" in cloud.trained(0, f"pod-{index}"))
    cloud.plan(workers=1, ssh_fails={"pod-1/0": 255})
    out, err = cloud("status", slices, code=1)
    assert [line.split()[0] for line in out.splitlines()] == ["pod", "pod-0/0", "pod-2/0"]
    assert "status failed on: pod-1/0" in err
    assert "loading" in cloud("logs", slices, "--slice=2")[0]


@pytest.mark.slow
def test_run_starts_nothing_on_top_of_a_living_run(pod):
    pod("run", "--", "--workdir=one")
    eventually(lambda: pod.trained() and pod.trained(1))
    assert "runs already on 2 workers" in pod("run", "--", "--workdir=one")[1]
    assert "another command or commit lives" in pod("run", "--", "--workdir=two", code=1)[1]
    assert pod.trained() == pod.trained(1) == [*TRAIN, "--workdir=one"]
    pod.finish(0)
    pod.wait_for_end()
    (pod.cloud / "finish").unlink()
    pod("run", "--", "--workdir=two")
    eventually(lambda: "--workdir=two" in pod.trained() and "--workdir=two" in pod.trained(1))


def test_the_way_of_the_docs_to_stop_a_run_lets_it_end_by_itself(pod):
    pod("run", "--", "--workdir=w")
    pod.wait_for_steps()
    pod("ssh", "--worker=all", "--", "bash", "-c", "kill $(cat xlmjax/run/pid)")
    pod.wait_for_end()
    assert pod("status")[0].count("ended 143") == 2


def test_a_run_whose_machine_was_restarted_is_lost(pod):
    pod("run", "--", "--workdir=w")
    pod.wait_for_steps()
    pod.finish(0)
    pod.wait_for_end()
    assert pod("status")[0].count("ended 0") == 2
    (pod.worker(1) / "xlmjax" / "run" / "exit").unlink()
    assert re.search(r"pod/1  lost", pod("status")[0])


def test_run_needs_setup(cloud):
    cloud("create", "--type=v4-16")
    _, err = cloud("run", "--", "--workdir=w", code=1)
    assert "is not installed: launch_tpu.sh setup" in err
    assert "start failed on: pod/0 pod/1" in err


def test_status_of_what_is_not_active_asks_no_worker(cloud):
    assert cloud("status")[0] == "pod  NONE\n"
    assert not cloud.calls("tpu-vm", "ssh")


def test_logs_of_one_worker_and_of_all(pod):
    pod("run", "--", "--workdir=w")
    pod.wait_for_steps()
    out, _ = pod("logs", "--worker=1", "--lines=2")
    assert out == "loading\nstep 5/100: loss 1.0\n"
    out, _ = pod("logs", "--worker=all", "--lines=1")
    assert out == "pod/0  step 5/100: loss 1.0\npod/1  step 5/100: loss 1.0\n"
    following = pod.start("logs", "--follow", "--lines=1")
    assert following.stdout.readline() == "step 5/100: loss 1.0\n"
    with (pod.worker() / "xlmjax" / "run" / "log").open("a") as file:
        file.write("step 6\n")
    assert following.stdout.readline() == "step 6\n"
    os.killpg(following.pid, signal.SIGKILL)
    following.communicate()


def test_ssh_passes_a_command_exactly(pod):
    out, _ = pod("ssh", "--worker=all", "--", "printf", "[%s]", *NASTY)
    assert out == "".join(f"[{text}]" for text in NASTY) * 2
    assert pod("ssh")[0] == "shell\n"
    assert pod.calls("tpu-vm", "ssh")[-1] == [
        *("compute", "tpus", "tpu-vm", "ssh", "pod", *WHERE, "--worker=0")
    ]


# Watching


def watch(cloud, *args):
    return cloud.start("watch", "--type=v4-16", "--spot", *args)


def ended(process, code):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out, err)
    return err


def test_watch_brings_a_run_through_preemption_to_its_end(cloud):
    cloud.plan(creations=[["PROVISIONING", "ACTIVE"], ["PROVISIONING", "FAILED"], ["ACTIVE"]])
    watching = watch(cloud, "--bucket=gs://my-bucket", "--", *NASTY)
    expected = [*TRAIN, *NASTY, "--workdir=gs://my-bucket/pod"]
    eventually(lambda: cloud.trained() == cloud.trained(1) == expected)
    (cloud.repository / "code.txt").write_text("changed meanwhile")
    cloud.preempt()
    eventually(lambda: cloud.trained() == cloud.trained(1) == expected)
    commit = cloud.git("rev-parse", "HEAD")
    assert (cloud.worker() / "xlmjax/code" / commit / "code.txt").read_text() == "committed"
    cloud.finish(0)
    err = ended(watching, 0)
    assert "gone SUSPENDED" in err
    assert "gone FAILED" in err
    assert "the run has ended well" in err
    assert len(cloud.calls("queued-resources", "create")) == 3
    assert len(cloud.calls("queued-resources", "delete")) == 2
    assert all("--spot" in call for call in cloud.calls("queued-resources", "create"))


def test_watch_goes_on_with_the_command_of_run(pod):
    pod("run", "--", *NASTY, "--workdir=w")
    eventually(lambda: pod.trained(1))
    watching = watch(pod)
    pod.preempt("FAILED")
    expected = [*TRAIN, *NASTY, "--workdir=w"]
    eventually(lambda: pod.trained() == pod.trained(1) == expected)
    pod.finish(0)
    ended(watching, 0)


@pytest.mark.parametrize(
    ("code", "others"), [(1, 1), (1, 75), (1, 137), (2, 2), (2, 143), (130, 75)]
)
def test_watch_does_not_repeat_what_fails_by_itself(pod, code, others):
    pod.finish(others, index=0)
    pod.finish(code, index=1)
    err = ended(watch(pod, "--", "--workdir=w"), code)
    assert f"the run failed with exit code {code}, which is no preemption" in err
    assert pod.trained().count("train") == 1
    assert not pod.calls("queued-resources", "delete")


def test_watch_starts_again_what_was_asked_to_stop(pod):
    watching = watch(pod, "--", "--workdir=w")
    eventually(lambda: pod.trained(1))
    pod.finish(1, index=0)  # it loses the worker whose machine is maintained
    pod.finish(143, index=1)
    eventually(lambda: pod.trained().count("train") == pod.trained(1).count("train") == 2)
    pod.finish(0)
    ended(watching, 0)


@pytest.mark.parametrize("codes", [(75, 75), (134, 75), (0, 75), (137, 75), (139, 134), (135, 0)])
def test_watch_starts_again_where_workers_ask_for_it_or_were_killed(pod, codes):
    """75: hung, lost one another, could not save; above 128: a signal (docs/running.md)."""
    watching = watch(pod, "--", "--workdir=w")
    eventually(lambda: pod.trained(1))
    for index, code in enumerate(codes):
        pod.finish(code, index=index)
    eventually(lambda: pod.trained(1).count("train") == 2)
    pod.finish(0)
    ended(watching, 0)


def test_watch_recreates_with_the_settings_of_create_and_setup(cloud):
    (cloud.cloud / "bucket" / "data").mkdir(parents=True)
    (cloud.cloud / "bucket" / "data" / "store").write_text("tokens")
    cloud.plan(workers=1)
    network = ("--network=net", "--subnetwork=sub", "--service-account=me@x")
    cloud("create", "--type=v4-8", "--runtime=mine", "--slices=2", "--spot", *network)
    cloud("setup", "--data=gs://bucket/data")
    cloud("run", "--", "--workdir=w")
    watching = cloud.start("watch")
    for node in ("pod-0", "pod-1"):
        eventually(lambda node=node: cloud.trained(0, node))
    cloud.preempt()
    for node in ("pod-0", "pod-1"):
        eventually(lambda node=node: cloud.trained(0, node))
        store = cloud.worker(0, node) / "xlmjax" / "current" / "data" / "store"
        assert store.read_text() == "tokens"
    cloud.finish(0)
    ended(watching, 0)
    first, again = cloud.calls("queued-resources", "create")
    assert first == again
    assert {"--spot", "--node-count=2", "--runtime-version=mine", *network} <= set(again)


def test_watch_sees_a_node_that_was_preempted_before_its_resource_says_so(pod):
    watching = watch(pod, "--", "--workdir=w")
    eventually(lambda: pod.trained(1))
    pod.plan(node_states={"pod": "PREEMPTED"})
    eventually(lambda: pod.calls("queued-resources", "delete"))
    pod.plan()
    eventually(lambda: len(pod.calls("queued-resources", "create")) > 1 and pod.trained(1))
    pod.finish(0)
    assert "gone pod PREEMPTED" in ended(watching, 0)


def test_watch_gives_up_after_so_many_attempts(cloud):
    cloud.plan(creations=[["FAILED"]])
    err = ended(watch(cloud, "--attempts=3", "--poll=0.001", "--", "--workdir=w"), 1)
    assert "gave up after 3 attempts without progress" in err
    assert len(cloud.calls("queued-resources", "create")) == 3


@pytest.mark.slow
def test_watch_starts_what_does_not_run_and_leaves_the_rest_alone(pod):
    pod.plan(ssh_fails={"pod/1": 255})
    watching = watch(pod, "--attempts=99", "--poll=0.01", "--", "--workdir=w")
    eventually(lambda: len(pod.calls("tpu-vm", "scp")) > 1)
    assert not pod.trained()  # without all workers there is no run
    pod.plan()
    eventually(lambda: pod.trained() and pod.trained(1))
    ending = pod.worker(1) / "xlmjax" / "run" / "exit"
    pod.finish(0, index=1)
    eventually(ending.exists)
    ending.unlink()
    eventually(lambda: pod.trained(1).count("train") == 2)
    pod.finish(0)
    ended(watching, 0)
    assert pod.trained().count("train") == 1


def test_watch_leaves_another_run_alone(pod):
    pod("run", "--", "--workdir=one")
    eventually(lambda: pod.trained(1))
    assert "another run lives on pod" in ended(watch(pod, "--", "--workdir=two"), 1)
    assert pod.trained().count("train") == 1


# Dry runs


def as_calls(cloud, out):
    """Return what the printed lines call when a shell reads them, by a gcloud that only records."""
    recorder = cloud.home / "recorder"
    recorder.mkdir(exist_ok=True)
    for name in ("gcloud", "git", "mkdir", "rm"):
        program = shlex.quote(f"import json, sys; print(json.dumps([{name!r}, *sys.argv[1:]]))")
        (recorder / name).write_text(f'#!/bin/sh\nexec python3 -S -E -c {program} "$@"\n')
        (recorder / name).chmod(0o755)
    environment = {**cloud.environment, "PATH": f"{recorder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh"], input=out, env=environment, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dry_run_runs_nothing_and_prints_what_a_shell_would_run(cloud):
    (cloud.cloud / "bucket" / "data").mkdir(parents=True)
    commands = (
        ("create", "--type=v4-16"),
        ("setup", "--data=gs://bucket/data"),
        ("run", "--", *NASTY, "--workdir=w"),
        ("status",),
        ("logs", "--worker=all"),
        ("ssh", "--", "printf", "%s", *NASTY),
        ("delete", "--yes"),
    )
    printed = [cloud(name, "--dry-run", *rest)[0] for name, *rest in commands]
    assert not cloud.calls()
    assert not (cloud.home / ".local").exists()
    for command, out in zip(commands, printed, strict=True):
        before = len(cloud.calls())
        cloud(*command)
        done = [call for call in cloud.calls()[before:] if call[0] == "compute"]
        counting = [call for call in done if call[2:4] == ["tpu-vm", "describe"]]  # of answers
        dry = [call[1:] for call in as_calls(cloud, out) if call[0] == "gcloud"]
        assert dry == [call for call in done if call not in counting]
        if command[0] == "run":
            cloud.wait_for_steps()


def test_a_dry_run_of_watch_prints_one_round(cloud):
    out, _ = cloud("watch", "--dry-run", "--type=v4-16", "--", "--workdir=w")
    verbs = [call[4] for call in as_calls(cloud, out) if call[0] == "gcloud"]
    assert verbs == ["describe", "create", "describe", "scp", "ssh", "ssh"]
    assert not cloud.calls()


# What is written about it


def documented():
    for name in ("docs/tpu.md", "README.md"):
        text = (ROOT / name).read_text()
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("./launch_tpu.sh"):
                    yield name, line


def test_the_documents_use_every_command():
    assert {shlex.split(line)[1] for _, line in documented()} == set(COMMANDS)


@pytest.mark.parametrize(("name", "line"), sorted(set(documented())))
def test_every_documented_command_is_possible(cloud, name, line):
    text = (ROOT / "docs/tpu.md").read_text()
    [settings] = re.findall(r"cat > tpu\.env <<END\n(.*?)\nEND\n", text, re.DOTALL)
    (cloud.home / "tpu.env").write_text(settings)
    words = [
        word.replace("tpu.env", str(cloud.home / "tpu.env"))
        for word in shlex.split(line, comments=True)
    ]
    if words[1] == "watch" and "--" not in words:
        words += ["--", "--config=xlm15"]
    out, _ = cloud(words[1], "--dry-run", *words[2:], tpu=())
    assert out.startswith(("gcloud compute tpus ", "mkdir "))


def test_shellcheck_has_nothing_to_say():
    folders = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    program = shutil.which("shellcheck", path=folders)
    if program is None:
        pytest.skip("shellcheck is not installed: the dev group has it")
    command = [program, str(ROOT / SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
