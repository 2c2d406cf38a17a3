import json

import numpy as np
import pytest

from components.features.objectives import OBJECTIVE_NAMES, OBJECTIVES
from tests.benchmarks import study_training
from tests.benchmarks.study_findings import Claim, Results, convergence, multi_epoch
from tests.benchmarks.study_ids import CLICK_RATE, RATES_PER_CLICK, Simulation, World, zipf
from tests.benchmarks.study_runs import Evaluation, Outcome, execute, execute_to_file, load, read
from tests.benchmarks.study_training import QUICK, plan_ids


def quick_run(arm, setting="paper_like"):
    return plan_ids(quick=True)[setting][0][arm]


@pytest.fixture(scope="module")
def drawn():
    return World(Simulation(), 0).draw(100_000, 1)


def test_world_draws_the_same_for_the_same_seed_and_stream():
    first, again = (World(QUICK, 3).draw(500, 1) for _ in range(2))
    assert first.categorical.equal(again.categorical) and first.labels.equal(again.labels)
    assert not first.categorical.equal(World(QUICK, 3).draw(500, 2).categorical)
    assert not first.categorical.equal(World(QUICK, 4).draw(500, 1).categorical)


def test_world_has_the_stated_rates(drawn):
    clicks = drawn.labels[:, 0].mean().item()
    assert clicks == pytest.approx(CLICK_RATE, rel=0.05)
    for number, objective in enumerate(OBJECTIVES):
        positives = drawn.labels[:, number].mean().item()
        assert positives == pytest.approx(RATES_PER_CLICK[objective.name] * CLICK_RATE, rel=0.25)


def test_world_masks_rows_by_objective(drawn):
    clicked = drawn.labels[:, 0]
    expected = {"all": clicked * 0 + 1, "clicked": clicked, "not_clicked": 1 - clicked}
    for number, objective in enumerate(OBJECTIVES):
        assert drawn.masks[:, number].equal(expected[objective.rows])
        assert (drawn.labels[:, number] <= drawn.masks[:, number]).all()
    assert (drawn.labels[:, 1] <= clicked).all()


def test_zipf_follows_its_law():
    ids = zipf(np.random.default_rng(0), 400_000, 1000, 0.8)
    counts = np.bincount(ids, minlength=1000)
    assert ids.min() == 0 and ids.max() < 1000
    assert counts[10:20].sum() / counts[100:200].sum() == pytest.approx(
        (np.arange(11, 21) ** -0.8).sum() / (np.arange(101, 201) ** -0.8).sum(), rel=0.1
    )


def test_run_gives_the_same_outcome_again_and_keeps_it(tmp_path):
    run = quick_run("fal_update")
    execute_to_file(run, tmp_path)
    kept = read(run, tmp_path)
    again = execute(run, load(run.source, run.recipe.seed))
    assert kept is not None
    assert kept.model_copy(update={"seconds": 0}) == again.model_copy(update={"seconds": 0})
    assert [test.at for test in kept.tests] == list(run.evaluate_at)
    assert [day.at for day in kept.days] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [run.path(tmp_path).name]


def test_run_of_another_setting_has_another_file(tmp_path):
    run = quick_run("baseline")
    recipe = run.recipe.model_copy(update={"batch_size": 7})
    source = run.source.model_copy(update={"user_exponent": 0.5})
    changed = [run.model_copy(update=change) for change in ({"recipe": recipe}, {"source": source}, {"version": 2})]
    assert len({one.path(tmp_path) for one in [run, *changed]}) == 4


def test_arms_differ_only_after_the_first_epoch(tmp_path):
    for arm in ("baseline", "meda", "meda_keep"):
        execute_to_file(quick_run(arm), tmp_path)
    found = {arm: read(quick_run(arm), tmp_path).tests for arm in ("baseline", "meda", "meda_keep")}
    assert found["baseline"][:10] == found["meda"][:10] == found["meda_keep"][:10]
    assert found["baseline"][10:] != found["meda"][10:]


@pytest.mark.slow
def test_study_goes_on_where_it_was(tmp_path, capsys):
    call = ["--quick", "--processes", "0", "--folder", str(tmp_path)]
    study_training.main(call)
    printed = capsys.readouterr().out
    figures = [line for line in printed.splitlines() if line.startswith("study.")]
    assert any(line.startswith("study.multi_epoch.harsh.baseline.jump_percent: ") for line in figures)
    assert any(line.startswith("study.verdict.fal_scaling.paper_like.log_beats_linear") for line in figures)
    assert "plotly" in (tmp_path / "report.html").read_text()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    missing = next(iter(files))
    missing.unlink()
    study_training.main(call)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert after.keys() == files.keys()
    assert [path for path in files if after[path] != files[path]] == [missing]
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("study.")]
    assert again[:-3] == figures[:-3]
    assert json.loads(missing.read_bytes())["run"]["name"]


def outcome(day_aucs, losses_by_epoch, training=()):
    tests = [Evaluation(at=at, losses=losses, aucs=(0.5,) * 6) for at, losses in losses_by_epoch.items()]
    days = [Evaluation(at=number, losses=(0.0,) * 6, aucs=aucs) for number, aucs in enumerate(day_aucs, start=1)]
    positives = [600, 500, 400, 300, 200, 100]
    return Outcome(
        run=quick_run("baseline"), seconds=0, training=list(training), tests=tests, days=days, positives=positives
    )


def test_gain_is_of_the_sums_over_days():
    control = outcome([(0.5,) * 6, (0.6, None, *(0.5,) * 4)], {})
    treated = outcome([(0.55,) * 6, (0.6, None, *(0.5,) * 4)], {})
    gains = Results("harsh", {"one_epoch": [treated], "plain": [control]}).gains("one_epoch", "plain")
    assert gains.shape == (1, 2, 7)
    assert gains[0, 0] == pytest.approx([10] * 7)
    assert gains[0, 1, 0] == pytest.approx((1.15 / 1.1 - 1) * 100)
    assert gains[0, 1, 1] == pytest.approx(10)
    assert gains[0, 1, 6] == pytest.approx((5.9 / 5.6 - 1) * 100)


def test_jump_is_relative_to_the_end_of_the_first_epoch():
    flat = {at: (0.1,) * 6 for at in (1.0, 1.05, 1.1, 2.0)}
    rising = flat | {1.1: tuple(0.1 + 0.001 * number for number in range(6))}
    arms = dict.fromkeys(("half_rate", "fal_update", "fal_gradient", "meda", "meda_keep"), [outcome([], flat)] * 2)
    results = Results("harsh", {"one_epoch": [outcome([], {})] * 2, "baseline": [outcome([], rising)] * 2, **arms})
    found = multi_epoch(results)
    lines = {figure.name: figure.line() for figure in found.figures}
    prefix = "study.multi_epoch.harsh.baseline"
    assert lines[f"{prefix}.jump_percent"].startswith(f"{prefix}.jump_percent: +2.50 (se 0.00")
    # The sixth head of six rises by 5%, and it is the sparsest.
    name = f"{prefix}.checkout_given_view.jump_percent"
    assert lines[name].startswith(f"{name}: +5.00")
    assert next(claim for claim in found.claims if "sparser" in claim.name).values == pytest.approx([1.0, 1.0])


def points(*losses):
    """One point every ten steps."""
    return [
        {"step": 10 * number, "epoch": 0, **dict.fromkeys(OBJECTIVE_NAMES, loss)}
        for number, loss in enumerate(losses, start=1)
    ]


def test_convergence_says_when_plain_adam_is_reached():
    plain = outcome([], {0.5: (0.5,) * 6, 1.0: (0.4,) * 6}, points(0.5, 0.45, 0.4))
    sparse = outcome([], {0.5: (0.45,) * 6, 1.0: (0.35,) * 6}, points(0.5, 0.39, 0.3))
    found = convergence(Results("harsh", {"plain": [plain] * 2, "one_epoch": [sparse] * 2}))
    values = {figure.name.removeprefix("study.convergence.harsh."): figure.values for figure in found.figures}
    assert values["steps_to_plain_training_loss"] == pytest.approx([20, 20])
    assert values["epochs_to_plain_test_loss"] == pytest.approx([0.75, 0.75])
    assert values["plain.training_loss"] == pytest.approx([2.4, 2.4])
    never = convergence(Results("harsh", {"plain": [sparse] * 2, "one_epoch": [plain] * 2}))
    reached = {figure.name.split(".")[-1]: figure.values for figure in never.figures}
    assert np.isnan(reached["steps_to_plain_training_loss"]).all()
    assert np.isnan(reached["epochs_to_plain_test_loss"]).all()


@pytest.mark.parametrize(
    ("values", "sign", "verdict"),
    [
        ([1.0, 1.1, 0.9], 1, "holds"),
        ([1.0, 1.1, 0.9], -1, "does not hold here: the opposite does"),
        ([1.0, -1.1, 0.9], 1, "does not hold here: within two standard errors of none"),
        ([1.0], 1, "does not hold here: too few seeds or labels to say"),
        ([1.0, np.nan], 1, "does not hold here: too few seeds or labels to say"),
    ],
)
def test_verdict_needs_two_standard_errors(values, sign, verdict):
    assert Claim("a", "says", np.array(values), sign).verdict().startswith(f"a: {verdict} (")
