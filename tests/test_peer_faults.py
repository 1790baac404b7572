"""Faults found in other libraries, each with the test that shows we are immune to it."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

FAULTS = {
    "LogME: the evidence is wrong for n < d": "metrics/test_logme.py::test_is_the_plain_evidence_for_fewer_samples_than_features",
    "LogME: padding with noise raises it": "metrics/test_logme.py::test_padding_with_noise_features_does_not_raise_it",
    "LogME: depends on scale through an epsilon": "metrics/test_logme.py::test_ignores_the_scale_of_the_features",
    "LogME: gaps in labels make phantom classes": "metrics/test_logme.py::test_label_gaps_make_no_phantom_classes",
    "transformer-ranker: alpha and beta leak between classes": "metrics/test_logme.py::test_classes_do_not_leak_into_each_other",
    "H-score: saturates for n <= d": "metrics/test_h_score.py::test_wide_models_do_not_tie_as_they_do_without_shrinkage",
    "SFDA: saturates for n <= d": "metrics/test_sfda.py::test_does_not_saturate_with_no_more_samples_than_features",
    "SFDA: overwrites its input": "metrics/test_sfda.py::test_its_input_is_not_overwritten_so_a_second_call_gives_the_same",
    "SFDA's NLEEP: drops the logarithm": "metrics/test_nleep.py::test_keeps_the_logarithm_that_a_peers_copy_drops",
    "LEEP: 0/0 for a source class without mass": "metrics/test_leep.py::test_a_source_class_without_mass_is_no_zero_by_zero_as_in_four_peers",
    "TransRate: class rates weighted 1/C": "metrics/test_transrate.py::test_class_rates_are_weighted_by_class_size_not_equally",
    "TransRate: features not normalised": "metrics/test_transrate.py::test_ignores_the_scale_of_the_features_where_the_published_code_does_not",
    "LFC: the spectral norm": "metrics/test_lfc.py::test_stays_a_correlation_where_copies_with_the_spectral_norm_exceed_one",
    "LFC: float32 means swap models": "metrics/test_lfc.py::test_sums_in_float64_where_float32_means_would_swap_models",
    "LFC: an n x n kernel": "metrics/test_lfc.py::test_forms_no_n_by_n_kernel_where_d_is_smaller",
    "transformer-ranker: test labels enter": "test_rank_models.py::test_the_train_split_alone_is_looked_at",
    "transformer-ranker: one bad model aborts all": "test_rank_models.py::test_five_candidates_three_of_them_bad_give_two_scores_and_three_reasons",
    "transformer-ranker: an option reaches the first model only": "features/test_extract.py::test_features_are_those_of_a_plain_timm_pipeline",
    "transformer-ranker: string labels fail": "tasks/test_labels.py::test_labels_of_any_type_are_numbered_in_their_order",
    "transformer-ranker: embeds again for a second metric": "features/test_extract.py::test_one_forward_pass_however_many_metrics_and_none_the_second_time",
    "TLL: samples per class has no effect": "tasks/test_sampling.py::test_every_class_gives_what_it_has_up_to_the_cap",
    "TLL: names only timm has": "zoo/test_timm_folders.py::*",
    "TLL: stale features after a changed transform": "features/test_extract.py::test_another_transform_never_reuses_features",
    "TLL: one mean and std for every model": "features/test_extract.py::test_another_mean_and_std_share_the_pixels_but_not_the_features",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_test(fault):
    file, _, name = FAULTS[fault].partition("::")
    tree = ast.parse((TESTS / file).read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert name in names or (name == "*" and names)
