"""The examples run, and print what they should.

The numbers of the exam scores and of the sleep study are lme4's (and, for ordinary
regression, those of R's lm).
"""

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

# Boosted models, by the dozen.
SLOW = {"plot_encoder", "plot_pipeline"}
EXAMPLES = Path(__file__).parents[1] / "examples"
FINDINGS = {
    "lme4_phrasebook": [
        "R> summary(m)",
        "REML criterion: 1743.6",
        "-3.9536 -0.4634 0.0231 0.4634 5.1793",
        "Subject (Intercept) 612.09 24.740",
        "recipeB:temperature 0.0109",
        "poly(Days, 2)2 32.8558",
        "0 345.6107 14.6288 17.0 23.6254 1.9354e-14",
        "temperature 1 222.0000 8.7468e-19",
        "29.0220",
        "all columns before the bar are independent (True)",
    ],
    "out_of_core": [
        "120000 rows of 1818 shops came in 12 batches",
        "are 3.03 (true: 3) and 0.97 a unit of temperature (true: 1)",
        "No prediction is more than 1e-6 away",
        "there are 182 more shops",
        "From 6 partitions Dask has the same parameters",
    ],
    "plot_autocorrelation": [
        "308 days of 11 mares",
        "have the correlation 0.50, where chance leaves ± 0.11",
        "1 6 -775.22 1562.45 108.91",
        "phi is 0.607 (standard error 0.055)",
        "of 24 there are 22 within their 95% bands",
        "the sine is 1.74 times as large, that of the cosine 1.89 times",
        "the sine has 59 degrees of freedom in place of 295",
        "cos -0.881 0.514 42.634 0.094",
        "Test of independence: 340.4, 1 degree of freedom",
        "phi 0.60 0.03",
        "its standard error was 1.8 times too small",
    ],
    "plot_crossed": [
        "3292 ratings of 96 lecturers by 569 students",
        "correlate by 0.14 if lecturers are left out, by -0.002 if they are not",
        "NOTE: influential groups",
        "would be 0.368 in place of 0.327, which is 0.57 standard errors",
        "with the variances estimated again 0.367",
        "by both 0.0854",
    ],
    "plot_encoder": [
        "13247 customers of 1000 shops, 1 to 292 in each",
        "The standard deviation between shops is estimated as 0.555 (true: 0.5)",
        "1 2.00 2.00 0.50",
        "1.03 with TargetEncoder and 0.00 with RandomEffectsEncoder",
        "SingularFitWarning: transform makes constant columns of 'shop'",
        "shop 009 20.075 0.534 1.0",
    ],
    "plot_exam_scores": [
        "4059 students in 65 schools, 2 to 198 in each",
        "The intercept is -0.001191 and the slope 0.595057",
        "residual standard error is 0.8054 and R2 0.350",
        "deviation of 0.3063, students of one school one of 0.7522",
        "random intercepts log-likelihood -4684.38",
        "[[1. 0.164 0. 0. ]",
        "School 53 adds 1.36 (random part), which makes 2.47 (total)",
    ],
    "plot_intervals": [
        "650 rows of 25 stores in 26 weeks",
        "known store, known week 59.8 7.0 3.5",
        "new store, new week 61.7 18.5 17.6",
        "26 weeks to ± 2.1",
    ],
    "plot_pipeline": [
        "intake_mid 50% (float64), intake_top 25% (float64)",
        "for each of the 65 schools, under the labels of the data",
        "the mixed model has 0.455 in known schools",
        "where a column for each school has 0.454",
        "The best is (standLRT | school) by reml, with 0.4602",
        "beats the random intercept in 4 of 5 folds, by 0.0052 on average",
        "does not do better than the mixed model by itself (0.459 and 0.460)",
        "In school 16 such students are expected to score -0.04, in school 53 1.25",
        "are 95% sure of -0.01 to 1.22",
    ],
    "plot_sleepstudy": [
        "251.41 + 10.467 t",
        "24.74 ms, the slope one of 5.92 ms a day; their correlation is 0.066",
        "The residual standard deviation is 25.59 ms",
        "Subject 308 (Intercept) 2.26 12.07",
        "residual 25.59, log-likelihood -871.81",
        "residual 25.59, log-likelihood -875.97",
    ],
    "plot_formula_to_profile": [
        "residual 10.467 1.546 178.0",
        "-893.2325 1794.4651 42.8368 2",
        "explain 28% of the variance, days and subjects 80%",
        "Slope: 10.5 ms a day over all days, 11.4 from day 2 on",
    ],
    "plot_split_plot": [
        "recipe 2 42.0 0.2488 0.7809",
        "the F statistic of recipes is 1.08 in place of 0.25",
        "Ten degrees Fahrenheit more add 1.58 degrees",
        "Replicates of the six highest batches: 1, 1, 1, 2, 2, 2",
    ],
    "plot_which_question": [
        "R2 for 4049 students of 63 schools",
        "the mixed model is best, with 0.430",
        "what the line predicts, 0.332",
        "from 0.337 to 0.359, twenty to 0.396",
        "26 ms for days in between and 39 ms for the days ahead",
    ],
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(FINDINGS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in FINDINGS
    ],
)
def test_findings_and_figures(name, monkeypatch, capsys):
    saved = []
    # Drawing takes longer than all the rest, and finds nothing.
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: saved.append(file))
    # So that plt.show() warns on Linux, too, where a figure cannot be shown.
    monkeypatch.setenv("DISPLAY", "none")
    kept = [(o, pd.get_option(o)) for o in ("display.precision", "display.max_columns")]
    with plt.rc_context(), pd.option_context(*sum(kept, ())):
        runpy.run_path(str(EXAMPLES / f"{name}.py"))
    plt.close("all")
    printed = " ".join(capsys.readouterr().out.split())
    for finding in FINDINGS[name]:
        assert finding in printed
    assert len(saved) >= 4 or not name.startswith("plot_")
    for file in saved:
        assert f"Figure saved: {file}" in printed
