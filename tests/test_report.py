"""`xlmjax report`: what it reads of a run, what it says of several, and the page in a browser."""

import base64
import datetime
import gzip
import html
import html.parser
import importlib.resources
import itertools
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import browser
from tests.report_runs import CODES, training_line, write_run
from tests.small_run import small_config, write_data
from xlmjax import cli
from xlmjax.data.mixture import open_groups
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.objectives import naming
from xlmjax.planning import mixture_plan
from xlmjax.planning.mixture_record import read_groups, record_groups
from xlmjax.report.charts import Curve, log_ticks, thinned
from xlmjax.report.log import read_log
from xlmjax.report.panels import number, share
from xlmjax.report.runs import (
    config_differences,
    find_workdirs,
    read_runs,
    restart_differences,
    series,
)
from xlmjax.report.sections import make_page


def page_of(*folders):
    runs = read_runs(find_workdirs(list(map(str, folders))))
    return make_page(runs, datetime.datetime(2026, 1, 2, 3, 4)).render()


def drawings_of(page):
    [packed] = re.findall(r'id="drawings">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_later_line_of_a_step_holds_and_a_cut_line_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        training_line(10, 5.0)
        + training_line(20, 4.0)
        + '{"step": 20, "eval/x/average/accuracy": 0.1}\n'
        + training_line(30, 9.0)
        + '{"step": 30, "eval/x/average/accuracy": 0.9}\n'
        + training_line(20, 4.5)  # after a resume from step 10
        + '{"step": 20, "eval/x/average/accuracy": 0.2}\n'
        + '{"step": 20, "eval/y/average/accuracy": 0.3}\n'
        + '{"step": 30, "train/loss": 1.'
    )
    training, evaluations, lines = read_log(path)
    assert training.steps.tolist() == [10, 20]
    assert training.column("train/loss").tolist() == [5.0, 4.5]
    assert lines == 2
    assert evaluations.steps.tolist() == [20]
    assert evaluations.column("eval/x/average/accuracy").tolist() == [0.2]
    assert evaluations.column("eval/y/average/accuracy").tolist() == [0.3]


def test_null_is_no_number_and_a_missing_name_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": null}\n{"step": 2, "perf/mfu": 0.5}\n')
    training, _, _ = read_log(path)
    assert np.isnan(training.column("train/loss")).all()
    assert np.isnan(training.column("nowhere")).all()
    assert np.array_equal(training.column("perf/mfu"), [np.nan, 0.5], equal_nan=True)


def test_a_long_log_is_read_in_evenly_spaced_lines_with_the_last(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(training_line(step, 1.0 / step) for step in range(1, 1_001)))
    training, _, lines = read_log(path, max_lines=11)
    assert lines == 1_000
    assert len(training.steps) == 11
    assert training.steps[[0, -1]].tolist() == [1, 1_000]
    assert np.ptp(np.diff(training.steps)) <= 1
    assert training.column("train/loss").tolist() == (1.0 / training.steps).tolist()


def test_a_line_that_is_no_json_is_told_with_its_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(training_line(1, 2.0) + '{"step": 2, "train/loss": oops}\n')
    with pytest.raises(ValueError, match="the line of step 2 is no JSON"):
        read_log(path)


def test_tokens_are_those_of_the_steps_also_where_a_line_has_no_rates(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": 9.0}\n' + training_line(3, 5.0) + training_line(13, 4.0)
    )
    [run] = read_runs([str(folder)])
    assert run.tokens.tolist() == [100.0, 300.0, 1300.0]  # 100 a step
    assert run.tokens_at(np.array([0, 2, 8])).tolist() == [0.0, 200.0, 800.0]
    (folder / "metrics.jsonl").write_text('{"step": 2, "train/loss": 9.0}\n')
    [run] = read_runs([str(folder)])
    places = run.config["train"]["rows"] * run.config["train"]["length"]
    assert run.tokens.tolist() == [2.0 * places]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder; name that of a run"),
        (lambda folder: folder.mkdir(), r"no metrics.jsonl in it or a folder below"),
        (lambda folder: _empty(folder), "no line of a training step yet; wait"),
        (lambda folder: _without_config(folder), "config.json: no such file"),
        (lambda folder: _foreign_config(folder), "config.json: no field `config.train`"),
        (lambda folder: folder.write_text(""), "no such folder; name that of a run"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, capsys, make, message):
    folder = tmp_path / "run"
    make(folder)
    assert cli.main(["report", f"--workdir={folder}", f"--out={tmp_path}/x.html"]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert str(folder) in said
    assert "Traceback" not in said
    assert not (tmp_path / "x.html").exists()


def _empty(folder):
    (write_run(folder) / "metrics.jsonl").write_text('{"step": 10, "tra')


def _without_config(folder):
    (write_run(folder) / "config.json").unlink()


def _foreign_config(folder):
    (write_run(folder) / "config.json").write_text('{"config": []}')


def test_a_folder_for_the_page_that_is_not_there_is_told(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    assert cli.main(["report", f"--workdir={folder}", f"--out={tmp_path}/no/x.html"]) == 2
    assert "make it first" in capsys.readouterr().err
    assert cli.main(["report", f"--workdir={folder}", f"--out={tmp_path}"]) == 2
    assert f"--out={tmp_path} is a folder: name a file in it" in capsys.readouterr().err


def test_workdirs_come_with_commas_flags_and_as_a_folder_of_runs(tmp_path, capsys):
    places = [str(write_run(tmp_path / "sweep" / name)) for name in ("lr=1,seed=0", "lr=1,seed=1")]
    other = str(write_run(tmp_path / "other"))
    assert find_workdirs([places[0], other]) == [places[0], other]  # a comma of the path itself
    assert find_workdirs([f"{other},{tmp_path}/sweep/"]) == [other, *places]
    names = [run.name for run in read_runs([*places, other])]
    assert names == ["lr=1,seed=0", "lr=1,seed=1", "other"]
    assert cli.main(["report", f"--workdir={tmp_path}/sweep", f"--workdir={other}"]) == 0
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert "3 runs" in capsys.readouterr().out


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    folders = [str(write_run(tmp_path / parent / "run")) for parent in "ab"]
    assert [run.name for run in read_runs(folders)] == ["a/run", "b/run"]


def test_only_leaves_that_differ_are_differences(tmp_path):
    write_run(tmp_path / "a", changes={"optimizer.learning_rate": 1e-3})
    write_run(tmp_path / "b", changes={"optimizer.learning_rate": 2e-3, "seed": 7})
    runs = read_runs([str(tmp_path / "a"), str(tmp_path / "b")])
    assert config_differences(runs) == [
        ("optimizer.learning_rate", ["0.001", "0.002"]),
        ("seed", ["0", "7"]),
    ]


def test_what_changed_at_a_restart_is_told(tmp_path):
    folder = write_run(tmp_path / "run")
    content = json.loads((folder / "config.json").read_text())
    content["config"]["optimizer"]["clip_norm"] = 99.0
    (folder / "config-100.json").write_text(json.dumps(content))
    [run] = read_runs([str(folder)])
    assert [change[:2] for change in restart_differences(run)] == [(100, "optimizer.clip_norm")]
    assert run.config["optimizer"]["clip_norm"] == 99.0


def test_scores_of_other_protocols_and_of_lost_steps_are_not_drawn(tmp_path):
    folder = write_run(tmp_path / "run", evaluations=2)  # steps 100 and 200
    content = json.loads((folder / "eval" / "xnli-100.json").read_text())
    content["protocol"]["max_rows"] = 9
    (folder / "eval" / "xnli-100.json").write_text(json.dumps(content))
    content["protocol"]["max_rows"] = 8
    (folder / "eval" / "xnli-900.json").write_text(json.dumps(content))
    (folder / "eval" / "retrieval-100.json").unlink()  # its numbers are in the log
    [run] = read_runs([str(folder)])
    found = {evaluation.name: evaluation for evaluation in run.evaluations}
    assert found["xnli"].log.steps.tolist() == [200]
    assert list(found["xnli"].left_out) == [100]
    assert found["retrieval"].log.steps.tolist() == [100, 200]
    page = page_of(folder)
    assert "step 100 was scored under another protocol" in page
    assert "they differ in: max_rows" in page


def test_a_result_that_is_half_written_is_left_out_by_name(tmp_path):
    folder = write_run(tmp_path / "run", evaluations=2)
    (folder / "eval" / "xnli-200.json").write_text('{"protocol": {"evalu')
    (folder / "eval" / "other-200.json").write_text("[1]")
    [run] = read_runs([str(folder)])
    assert run.unreadable == ["eval/other-200.json", "eval/xnli-200.json"]
    found = {evaluation.name: evaluation for evaluation in run.evaluations}
    assert found["xnli"].log.steps.tolist() == [100, 200]  # the latter from the log
    assert "eval/xnli-200.json: no whole result" in page_of(folder)


def test_the_record_of_a_mixture_says_what_the_plan_says(tmp_path):
    write_data(tmp_path)
    config = small_config(tmp_path, data__mixing__stages=((0, "alpha=1.0"), (16_384, "alpha=0.0")))
    config.train.num_steps = 20_000
    groups = open_groups(config, Vocabulary.load(config.data.vocabulary))
    written = json.loads(json.dumps(record_groups(groups, config.objectives)))
    [record] = read_groups(written)
    for step in (3, 9_000, 20_000):
        plans = mixture_plan.plan_tasks("mlm", groups[0].mixture, groups[0].rows, step)
        assert record.epochs(step) == pytest.approx({plan.name: plan.epochs for plan in plans})
        total = sum(plan.seen for plan in plans)
        by_task, by_language = record.target_shares(step)
        assert by_task == pytest.approx({plan.name: plan.seen / total for plan in plans})
        planned = mixture_plan.plan_languages(plans, groups[0].mixture.tasks)
        assert by_language == pytest.approx({row.code: row.share for row in planned}, rel=1e-6)


def test_a_run_without_a_plan_takes_it_from_its_stores_or_says_why_not(tmp_path):
    write_data(tmp_path)
    fields = small_config(tmp_path).to_dict()
    folder = write_run(tmp_path / "run", codes=("en", "fr"), mixtures=False)
    content = json.loads((folder / "config.json").read_text())
    content["config"] = fields
    (folder / "config.json").write_text(json.dumps(content))
    [run] = read_runs([str(folder)])
    assert [task.name for task in run.mixtures[0].tasks] == ["mlm.en", "mlm.fr", "tlm.en_fr"]
    assert "as they are now" in run.mixture_note
    content["config"]["data"]["stores"] = "nowhere"
    (folder / "config.json").write_text(json.dumps(content))
    [run] = read_runs([str(folder)])
    assert not run.mixtures
    assert "nowhere" in run.mixture_note


def test_owners_of_several_groups_keep_their_group(tmp_path):
    path = tmp_path / "metrics.jsonl"
    names = ("", "mlm/", "clm/", "mlm/en/", "clm/en/", "clm/clm.en/")
    values = {f"train/{name}loss": float(index) for index, name in enumerate(names)}
    path.write_text(json.dumps({"step": 1, **values}) + "\n")
    training, _, _ = read_log(path)
    found = series(training, "loss", ["clm", "mlm"])
    assert {kind: {*of} for kind, of in found.items()} == {
        "group": {"mlm", "clm"},
        "language": {"mlm: en", "clm: en"},
        "task": {"clm: clm.en"},
    }
    assert found["language"]["clm: en"].tolist() == [4.0]


def test_targets_are_counted_by_task_and_language():
    metrics = {
        "loss": (np.float32(6), np.float32(4)),
        "task/loss": (np.array([6.0, 0.0]), np.array([4.0, 0.0])),
        "task/accuracy": (np.array([1.0, 0.0]), np.array([4.0, 0.0])),
    }
    assert naming.target_counts(metrics, ["mlm.en", "mlm.fr"]) == {"mlm.en/targets": 4.0}


def test_thinning_takes_means_and_keeps_the_ends():
    x = np.arange(1.0, 10_001)
    curve = Curve(0, x, np.where(x % 10 == 0, np.nan, x), x.astype(int))
    few = thinned(curve, 50)
    assert len(few.x) == len(few.y) == len(few.steps) == 50
    assert few.x[-1] == 10_000
    np.testing.assert_allclose(few.y, few.x - 100, atol=0.5)
    assert thinned(few, 50) is few


@pytest.mark.parametrize(
    ("start", "end", "most", "ticks"),
    [
        (220, 26_000, 6, [500, 1_000, 2_000, 5_000, 10_000, 20_000]),
        (220, 26_000, 3, [1_000, 10_000]),
        (35, 62, 3, [40, 50]),
        (1, 1e9, 3, [1, 1e4, 1e8]),
    ],
)
def test_ticks_by_powers_of_ten_are_round_and_few(start, end, most, ticks):
    assert log_ticks(start, end, most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1_234_567, "1.23M"),
        (9_746_000_000, "9.75B"),
        (12_345, "12.3k"),
        (1_076.4, "1,076"),
        (5.02, "5.02"),
        (1e-5, "1e-05"),
        (float("nan"), "-"),
    ],
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_shares_are_percent():
    assert share(0.1234) == "12.3 %"


# How colours look without each kind of cone, linear RGB (Machado et al. 2009, severity 1).
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    scaled = XYZ @ np.clip(rgb, 0, 1) / (XYZ @ np.ones(3))
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colors_are_told_apart_by_everyone_and_can_be_read(theme):
    style = importlib.resources.files("xlmjax.report").joinpath("page.css").read_text("utf-8")
    colors = re.findall(r"--run-\d: (#\w{6})", style)[6 * theme :][:6]
    ground = ("#ffffff", "#14171b")[theme]
    for color in colors:
        low, high = sorted(XYZ[1] @ linear(x) for x in (color, ground))
        assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG 2, level AA for text
    for deficiency in DEFICIENCIES.values():
        seen = [lab(np.array(deficiency) @ linear(color)) for color in colors]
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(one - other) > 15  # CIE 1976


class Outline(html.parser.HTMLParser):
    """Counts tags and collects what would be fetched."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_has_every_section_and_fetches_nothing(tmp_path):
    changed = {"optimizer.learning_rate": 0.125}
    page = page_of(write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1, changes=changed))
    outline = Outline(page)
    assert all(x.startswith(("#", "data:")) for x in outline.addresses)
    for title in (
        "Runs",
        "Training loss",
        "Mixture",
        "Evaluation: perplexity",
        "Evaluation: retrieval",
        "Evaluation: xnli",
        "Evaluation: translation",
        "Throughput and goodput",
        "Optimisation",
        "Config differences",
    ):
        assert f">{title}</h2>" in page
    status = "at step 200 of 400 (50 %)"
    for text in (status, "0.1.0", "abc1234", "data 8", "128k", "0.125", "Swahili (sw)"):
        assert text in page
    drawings = drawings_of(page)
    assert len(drawings["charts"]) == outline.tags["figure"]
    assert len(drawings["templates"]) < len(drawings["charts"])


def test_what_comes_from_files_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    folder = write_run(tmp_path / "<i>&", changes={"data.stores": evil})
    other = write_run(tmp_path / "other")
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace("train/mlm.en/", f"train/{evil.replace('/', '')}/"))
    page = page_of(folder, other)
    assert Outline(page).tags["script"] == 3
    assert "<i>&" not in page
    assert evil not in page
    assert html.escape(evil) in page


def test_the_command_needs_no_backend(tmp_path):
    folder = write_run(tmp_path / "run")
    code = (
        "import sys\n"
        "for name in ('jax', 'flax', 'tensorflow', 'seqio', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from xlmjax import cli\n"
        f"sys.exit(cli.main(['report', '--workdir={folder}']))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "report.html").stat().st_size < 1e6


def test_a_hundred_languages_stay_a_page_of_bounded_size(tmp_path):
    folder = write_run(tmp_path / "run", codes=CODES, lines=300)
    begin = time.process_time()
    page = page_of(folder)
    assert len(page) < 1.5e6
    assert time.process_time() - begin < 60
    assert len(drawings_of(page)["templates"]) < 40


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    folders = [
        write_run(folder / "a_run_with_a_long_name_that_wants_to_be_cut", lines=60),
        write_run(folder / "b", seed=1, lines=30),
    ]
    path = folder / "report.html"
    path.write_text(page_of(*folders))
    return path


VISITS = [(1280, False), (1280, True), (390, False), (390, True)]


@pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), VISITS)
def test_a_browser_shows_it_without_an_error_a_request_or_a_sideways_scroll(two_runs, width, dark):
    seen = browser.visit(
        two_runs,
        width,
        dark=dark,
        expressions={
            "charts": "document.querySelectorAll('.chart').length",
            "open": "[...document.querySelectorAll('.chart')]"
            ".filter(x => !x.closest('details:not([open])')).length",
            "drawn": "drawn.length",
            "axes": "[...new Set(drawn.map(x => x.left[0].type))].sort()",
            "sideways": "document.documentElement.scrollWidth - window.innerWidth",
            "ground": "getComputedStyle(document.body).backgroundColor",
            "lines": "drawn[0].renderers.map(x => x.visible)",
            "colors": "drawn[0].renderers.map(x => x.glyph.line_color.value)",
            "opened": "(document.querySelectorAll('details').forEach(x => x.open = true), "
            "document.querySelector('details .chart').scrollIntoView(), "
            "new Promise(done => setTimeout(() => done(drawn.length), 2000)))",
            "after": "(document.querySelector('button[data-run=\"1\"]').click(), "
            "drawn[0].renderers.map(x => x.visible))",
        },
    )
    assert not seen.problems
    assert not seen.requests
    values = seen.values
    assert values["drawn"] == values["open"] > 10
    assert values["charts"] >= values["opened"] > values["open"]  # the rest was folded away
    assert values["axes"] == ["CategoricalAxis", "LinearAxis", "LogAxis"]
    assert values["sideways"] <= 0
    assert values["ground"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert values["colors"] == (["#4aa0e0", "#f08030"] if dark else ["#0c77d5", "#bd5800"])
    assert values["lines"] == [True, True]
    assert values["after"] == [True, False]


def test_a_visit_tells_of_errors_and_requests(tmp_path):
    if browser.find_browser() is None:
        pytest.skip("no Chromium on this machine")
    path = tmp_path / "bad.html"
    path.write_text(
        "<link rel='icon' href='data:,'><body data-ready='yes'>"
        "<img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('oh'); setTimeout(() => nowhere(), 0)</script>"
    )
    seen = browser.visit(path, 1280)
    assert any("oh" in problem for problem in seen.problems)
    assert any("nowhere" in problem for problem in seen.problems)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
