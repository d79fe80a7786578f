"""The metrics against the official tools (reference/README_metrics.md, and the measures of the other READMEs)."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from retrace.metrics import badja, boxes, davis, flow, keypoints, landmarks, parts, points
from retrace.metrics.contours import f_measure
from retrace.metrics.regions import jaccard, statistics
from retrace.metrics.summary import dataset_mean
from retrace.propagation.codecs import best_cells

Data = dict[str, Any]
Reference = Callable[[str], Data]


def equal(ours: object, theirs: object, tolerance: float = 1e-12) -> None:
    """To 1e-12, NaN where NaN; float32 values say so with a larger tolerance."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, equal_nan=True)


def numbered(data: Data, prefix: str) -> list[str]:
    """The endings 0, 1, 2 ... of the keys with this prefix."""
    found = sorted((k.removeprefix(prefix) for k in data if k.startswith(prefix)), key=int)
    assert found, f"no key begins with {prefix}"
    return found


# ---- DAVIS


def test_davis2017(reference: Reference) -> None:
    """J and F of every frame, statistics and global table: the same bits."""
    data = reference("metrics_davis.npz")
    sequences = []
    for name in data["sequences"].tolist() + data["long_sequences"].tolist():
        scores = davis.davis2017(data[f"pred__{name}"], data[f"gt__{name}"])
        np.testing.assert_array_equal(scores.j, data[f"J__{name}"])
        np.testing.assert_array_equal(scores.f, data[f"F__{name}"])
        frames = scores.j.shape[1]
        for official, prefix in (("numpy2", "stats__"), ("numpy1", "stats_numpy1__"), (None, "stats__")):
            if prefix + name not in data or (official is None and frames > 255):
                continue
            rows = [
                (*statistics(j, official=official), *statistics(f, official=official))
                for j, f in zip(scores.j, scores.f, strict=True)
            ]
            np.testing.assert_array_equal(rows, data[prefix + name])
        if name in data["sequences"]:
            sequences.append(scores)
    table = davis.global_scores(sequences)
    assert list(table) == data["global_names"].tolist()
    np.testing.assert_array_equal(list(table.values()), data["global"])
    names = [f"{n}_{k}" for n, s in zip(data["sequences"], sequences, strict=True) for k in s.objects]
    assert names == data["object_names"].tolist()


def test_davis_long_sequences_have_a_right_decay(reference: Reference) -> None:
    """Where the official tool's 8-bit edges give NaN or nonsense, ours is the mean of the quarters."""
    data = reference("metrics_davis.npz")
    for name in data["long_sequences"]:
        for values in data[f"J__{name}"]:
            decay = statistics(values).decay
            quarter = len(values) // 4
            rough = values[:quarter].mean() - values[-quarter:].mean()
            assert decay == pytest.approx(rough, abs=0.02)


def test_davis2016(reference: Reference) -> None:
    """All labels merged into one object."""
    data = reference("metrics_davis.npz")
    sequences = []
    for name in data["d16_sequences"]:
        scores = davis.davis2016(data[f"pred__{name}"], data[f"gt__{name}"])
        np.testing.assert_array_equal(scores.j[0], data[f"d16_J__{name}"])
        np.testing.assert_array_equal(scores.f[0], data[f"d16_F__{name}"])
        sequences.append(scores)
    np.testing.assert_array_equal(list(davis.global_scores(sequences).values()), data["d16_global"])


def test_vos_benchmark(reference: Reference) -> None:
    """Another rule for what an object is, on the same folders, in alphabetical order."""
    data = reference("metrics_davis.npz")
    found = {
        f"{name}_{number}": scores
        for name in sorted(data["sequences"])
        for number, scores in davis.vos_benchmark(data[f"pred__{name}"], data[f"gt__{name}"]).items()
    }
    assert list(found) == data["vosbench_objects"].tolist()
    table = 100 * np.array(list(found.values()))
    equal(table, data["vosbench_J_F_percent"])
    means = table.mean(0)
    equal([means.mean(), *means], data["vosbench_global_JF_J_F_percent"])


def test_davis_void_and_tolerances(reference: Reference) -> None:
    """The frame functions with pixels left out, and with other distances."""
    data = reference("metrics_davis.npz")
    settings = {
        key: float(key.removeprefix("void__F_boundth_")) for key in data if key.startswith("void__F_boundth_")
    }
    assert settings
    for t, frame in enumerate(zip(data["void__pred"], data["void__gt"], data["void__void"], strict=True)):
        assert jaccard(*frame) == data["void__J"][t]
        assert f_measure(*frame) == data["void__F"][t]
        for key, tolerance in settings.items():
            assert f_measure(*frame, tolerance) == data[key][t]


def test_davis_refuses_an_unknown_id(reference: Reference) -> None:
    """The official program ends; ours names frame and id, or scores the others when told to."""
    data = reference("metrics_davis.npz")
    assert int(data["extra_pred_exits"]) == 1
    prediction, truth = data["pred__extra_pred_exit"], data["gt__extra_pred_exit"]
    with pytest.raises(ValueError, match="holds id"):
        davis.davis2017(prediction, truth)
    assert davis.davis2017(prediction, truth, unknown="ignore").j.shape[1] == len(truth) - 2


def test_davis_of_the_timed_sequence(reference: Reference) -> None:
    """70 frames at 480p: fast is also equal."""
    data = reference("metrics_bench_davis480p_70f_3obj.npz")
    for threads in (1, 2):
        table = davis.global_scores([davis.davis2017(data["pred"], data["gt"], threads=threads)])
        np.testing.assert_array_equal(list(table.values()), data["global"])


# ---- human parts


def frames_of(data: Data) -> list[tuple[str, int]]:
    """(video, frame) of a VIP file."""
    return [(v, t) for v in data["videos"].tolist() for t in range(len(data[f"category_gt__{v}"]))]


def pooled(pairs: Iterable[tuple[Any, Any]], classes: int = parts.CLASSES) -> Any:
    """One confusion matrix of many (prediction, truth)."""
    return sum(parts.confusion(prediction, truth, classes) for prediction, truth in pairs)


def vip_semantic(data: Data) -> None:
    """Histogram, IoU and accuracy per class, and the means."""
    frames = frames_of(data)
    matrix = pooled((data[f"category_pred__{v}"][t], data[f"category_gt__{v}"][t]) for v, t in frames)
    np.testing.assert_array_equal(matrix, data["aten_parsing__hist20"])
    np.testing.assert_array_equal(matrix, data["crw_eval_vip__hist20"])
    scores = parts.class_scores(matrix)
    equal(scores.iou, data["aten_parsing__iou_per_class"])
    four = (
        scores.overall_accuracy,
        scores.mean_accuracy,
        scores.mean_iou,
        scores.frequency_weighted_iou,
    )
    equal(four, data["aten_parsing__overallacc_meanacc_meanIU_fwIU"])
    equal(scores.mean_iou, data["crw_eval_vip__meanIU"])
    equal(scores.iou, data["vfs__iou_per_class"])
    equal(scores.accuracy, data["vfs__acc_per_class"])
    equal(scores.overall_accuracy, data["vfs__aAcc"])
    three = 100 * np.array([scores.mean_iou, scores.mean_accuracy, scores.overall_accuracy])
    equal(np.round(three, 2), data["vfs__mIoU_mAcc_aAcc_rounded_percent"])
    small = pooled((data[f"crw_smallpred__{v}__{t}"], data[f"category_gt__{v}"][t]) for v, t in frames)
    np.testing.assert_array_equal(small, data["crwsmall_eval_vip__hist20"])
    equal(parts.class_scores(small).mean_iou, data["crwsmall_eval_vip__meanIU"])


def vip_instances(data: Data) -> tuple[list[parts.PartFrame], list[parts.PartFrame]]:
    """Predicted and true part instances of every frame."""
    predictions, truths = [], []
    for v, t in frames_of(data):
        classes = data[f"inst_pred_class__{v}__{t}"]
        table = np.stack([np.arange(1, len(classes) + 1), classes], 1)
        predictions.append(
            parts.PartFrame(data[f"inst_pred__{v}__{t}"], table, data[f"inst_pred_score__{v}__{t}"])
        )
        truths.append(parts.PartFrame(data[f"inst_gt__{v}__{t}"], data[f"inst_gt_id_class__{v}__{t}"]))
    return predictions, truths


def vip_average_precision(data: Data) -> None:
    """AP^r_vol with scores and with all scores alike, official NaN included; ours gives 0 there."""
    predictions, truths = vip_instances(data)
    equal(parts.THRESHOLDS, data["aten_apr__thresholds"])
    official = parts.average_precision(predictions, truths, official=True)
    equal(official, data["aten_apr__AP_class_by_threshold"])
    equal(official.mean(0), data["aten_apr__mAP_per_threshold"])
    equal(official.mean(), data["aten_apr__APr_vol"])
    equal(np.nanmean(official), data["aten_apr__APr_vol_nan_ignored"])
    spurious = 1 + np.flatnonzero(np.isnan(official).any(1))
    np.testing.assert_array_equal(spurious, data["aten_apr__classes_with_nan"])
    equal(parts.average_precision(predictions, truths), np.nan_to_num(official, nan=0.0))
    alike = parts.average_precision([p._replace(scores=None) for p in predictions], truths, official=True)
    equal(alike, data["aten_apr_constscore_stablesort__AP"])
    equal(alike.mean(), data["aten_apr_constscore_stablesort__APr_vol"])


def vip_humans(data: Data) -> None:
    """Whole humans: instances of one class."""
    predictions, truths = [], []
    for v, t in frames_of(data):
        truth = data[f"human_gt__{v}"][t]
        ids = np.unique(truth[truth > 0])
        truths.append(parts.PartFrame(truth, np.stack([ids, np.ones_like(ids)], 1)))
        scores = data[f"human_pred_score__{v}__{t}"]
        ids = np.arange(1, len(scores) + 1)
        predictions.append(
            parts.PartFrame(data[f"human_pred__{v}__{t}"], np.stack([ids, np.ones_like(ids)], 1), scores)
        )
    equal(parts.HUMAN_THRESHOLDS, data["aten_human_ap__thresholds"])
    precision = parts.average_precision(predictions, truths, (1,), parts.HUMAN_THRESHOLDS)
    equal(precision[0], data["aten_human_ap__mAP"], 5.1e-7)  # printed with 6 decimals


@pytest.mark.parametrize("name", ["metrics_vip.npz", "metrics_vip_spurious.npz"])
def test_vip(reference: Reference, name: str) -> None:
    """Semantic parts, part instances and humans."""
    data = reference(name)
    vip_semantic(data)
    vip_average_precision(data)
    vip_humans(data)


def test_vip_of_stfc3(reference: Reference) -> None:
    """Predictions of another size are resized to the truth."""
    data = reference("stfc3_vip.npz")
    matrix = pooled((data[f"pred_{i}"], data[f"gt_{i}"]) for i in range(int(data["num_images"])))
    np.testing.assert_array_equal(matrix, data["hist"])
    scores = parts.class_scores(matrix)
    equal(scores.iou, data["iou_per_class"])
    equal(scores.overall_accuracy, data["overall_accuracy"])
    equal(scores.mean_accuracy, data["mean_accuracy"])
    equal(scores.mean_iou, data["mean_iou"])
    equal(scores.frequency_weighted_iou, data["fw_iou"])


def test_vip_of_stt(reference: Reference) -> None:
    """The data-set authors' evaluators; stored as float32."""
    data = reference("stt_l_vip_eval.npz")
    matrix = pooled(zip(data["pred_category"], data["gt_category"], strict=True))
    np.testing.assert_array_equal(matrix, data["confusion"])
    scores = parts.class_scores(matrix)
    equal(scores.iou, data["iou_per_class"], 1e-6)
    equal(scores.accuracy, data["acc_per_class"], 1e-6)
    equal([scores.mean_iou, scores.overall_accuracy], [data["mean_iou"], data["pixel_accuracy"]], 1e-6)
    truths, predictions = [], []
    for t, (truth, prediction) in enumerate(zip(data["gt_instance"], data["pred_instance"], strict=True)):
        truths.append(parts.PartFrame(truth, data["gt_table"][data["gt_table"][:, 0] == t, 1:]))
        rows = data["pred_table"][:, 0] == t
        predictions.append(
            parts.PartFrame(prediction, data["pred_table"][rows, 1:], data["pred_score"][rows])
        )
    precision = parts.average_precision(predictions, truths, official=True)
    equal(precision, data["ap_class_threshold"], 1e-6)
    equal(precision.mean(0), data["ap_per_threshold"], 1e-6)
    equal(precision.mean(), data["ap_vol"], 1e-6)


def test_parts_and_poses_of_vfs(reference: Reference) -> None:
    """Mean IoU with classes that are absent (-1 in the file), PCK from maps; stored as float32."""
    data = reference("vfs_pose_parts.npz")
    classes = int(data["miou_num_classes"])
    matrix = pooled(
        (
            (np.rint(p).astype(np.int64), np.rint(t).astype(np.int64))
            for p, t in zip(data["miou_pred"], data["miou_gt"], strict=True)
        ),
        classes,
    )
    scores = parts.class_scores(matrix)
    equal(np.nan_to_num(scores.iou, nan=-1), data["miou_class_iou"], 1e-6)
    equal(np.nan_to_num(scores.accuracy, nan=-1), data["miou_class_acc"], 1e-6)
    equal([scores.mean_iou, scores.overall_accuracy], [data["miou_mean"], data["miou_overall_acc"]], 1e-6)
    prediction = read_maps(data["pred_heat"], data["coords_xy"])
    truth = data["gt_xy"].transpose(2, 1, 0) + 0.5
    key = next(k for k in data if k.startswith("pck_"))
    thresholds = [float(v) for v in key.removeprefix("pck_").split("_")]
    distances = keypoints.normalised_distances(
        prediction, truth, everywhere(truth), keypoints.DIALECTS["vfs"]
    )
    equal(100 * keypoints.pck([distances], thresholds).mean, data[key], 1e-4)


# ---- keypoints


def everywhere(truth: Any) -> Any:
    """Visibility where the dialect does not ask for it."""
    return np.ones(truth.shape[:2], np.bool_)


def read_maps(maps: Any, coordinates: Any) -> Any:
    """Positions (T, K, 2) in our convention, read from maps by the 5 best pixels, checked against theirs."""
    cells = np.stack([best_cells(frame, 5) for frame in maps])  # (T, K, 2)
    equal(cells.transpose(2, 1, 0), coordinates, 2e-5)  # float32
    return np.where(cells[..., :1] < 0, np.nan, cells.astype(np.float64)) + 0.5


def crw_video(truth: Any, grid: Any, image: Any, side: int) -> Any:
    """Distances of CRW's evaluator: (2, K, T) from 1, (2, K, T') on the grid, scaled to pixels in float32."""
    frames = truth.shape[2]
    scale = np.array([image[1], image[0]], np.float32)[:, None, None]
    pixels = (grid[..., :frames] / np.float32(side) * scale).astype(np.float64)
    prediction = np.where(grid[:1, :, :frames] < 0, np.nan, pixels).transpose(2, 1, 0) + 0.5
    true = truth.transpose(2, 1, 0).astype(np.float64) - 0.5
    return keypoints.normalised_distances(prediction, true, everywhere(true), keypoints.DIALECTS["crw"])


def test_pck_of_crw(reference: Reference) -> None:
    """Visibility from the prediction, frame 0 left out, read on the grid."""
    data = reference("metrics_pck.npz")
    videos = [
        crw_video(
            data[f"crw__gt_pos_img_1based__{i}"],
            data[f"crw__pred_grid40__{i}"],
            data["crw__image_hw"][int(i)],
            40,
        )
        for i in numbered(data, "crw__pred_grid40__")
    ]
    pooled_distances = np.concatenate(videos)
    for joint in numbered(data, "crw__distances_joint"):
        column = pooled_distances[:, int(joint)]
        equal(column[~np.isnan(column)], data[f"crw__distances_joint{joint}"])
    scores = keypoints.pck(videos, data["crw__thresholds"])
    table = 100 * np.column_stack([scores.per_joint, scores.mean])
    equal(table, data["crw__pck_percent_joints_then_mean"])
    for maps, expected in zip(data["crw_decode__heatmaps"], data["crw_decode__coords_xy"], strict=True):
        equal(best_cells(maps[..., 1:].transpose(2, 0, 1)).T, expected, 1e-5)  # float32


def test_pck_of_stfc3(reference: Reference) -> None:
    """CRW's evaluator in STFC3's repository; stored as float32."""
    data = reference("stfc3_pose.npz")
    videos = [
        crw_video(
            data[f"pck_gt_{i}"],
            data[f"pck_pred_{i}"],
            data[f"pck_image_hw_{i}"],
            int(data["pck_feat_res"]),
        )
        for i in range(int(data["pck_num_videos"]))
    ]
    pooled_distances = np.concatenate(videos)
    columns = [column[~np.isnan(column)] for column in pooled_distances.T]
    assert [len(column) for column in columns] == data["pck_dist_count"].tolist()
    np.testing.assert_allclose(np.concatenate(columns), data["pck_dist_all"], rtol=1e-5, atol=1e-6)
    scores = keypoints.pck(videos, data["pck_thresholds"])
    equal(100 * np.column_stack([scores.per_joint, scores.mean]), data["pck"], 1e-4)


def test_pck_of_vfs(reference: Reference) -> None:
    """Frame 0 counts, joints at x <= 0 do not, read from 5 pixels at image resolution."""
    data = reference("metrics_pck.npz")
    videos = []
    for i in numbered(data, "vfs__heatmaps__"):
        coordinates = data[f"vfs__coords__{i}"]
        read_maps(data[f"vfs__heatmaps__{i}"], coordinates)
        truth = data[f"vfs__gt_pos_img_1based__{i}"].transpose(2, 1, 0) - 0.5
        missing = coordinates[:1] == -1
        prediction = np.where(missing, np.nan, coordinates).transpose(2, 1, 0)[: len(truth)] + 0.5
        videos.append(
            keypoints.normalised_distances(prediction, truth, everywhere(truth), keypoints.DIALECTS["vfs"])
        )
    equal(100 * keypoints.pck(videos).mean, data["vfs__pck_percent"])


def test_pck_of_tapnet(reference: Reference) -> None:
    """Joints outside the image in frame 0 never count; positions as they are stored."""
    data = reference("metrics_pck.npz")
    videos = []
    for i in numbered(data, "tapnet__gt_xy_asstored__"):
        truth = data[f"tapnet__gt_xy_asstored__{i}"].transpose(1, 0, 2)
        height, width = data["crw__image_hw"][int(i)]
        visible = ((truth >= 0) & (truth < [width, height])).all(-1)
        prediction = data[f"tapnet__pred_xy__{i}"].transpose(1, 0, 2)
        videos.append(
            keypoints.normalised_distances(prediction, truth, visible, keypoints.DIALECTS["tapnet"])
        )
    equal(100 * keypoints.pck(videos).mean, data["tapnet__pck_percent"])


def test_pck_of_mmpose(reference: Reference) -> None:
    """By box and by torso, float32."""
    data = reference("metrics_pck.npz")
    thresholds = [k.removeprefix("mmpose__values_thr") for k in data if k.startswith("mmpose__values_thr")]
    assert thresholds
    for threshold in thresholds:
        found = keypoints.pck_mmpose(
            data["mmpose__pred"],
            data["mmpose__gt"],
            data["mmpose__visible"] > 0,
            data["mmpose__bbox_xyxy"],
            float(threshold),
        )
        assert list(found) == data[f"mmpose__names_thr{threshold}"].tolist()
        equal(list(found.values()), data[f"mmpose__values_thr{threshold}"], 1e-6)


def test_pck_of_stt(reference: Reference) -> None:
    """VFS's evaluator in StT's repository; stored as float32."""
    data = reference("stt_m_jhmdb_pck.npz")
    videos = []
    for maps, truth, coordinates in zip(data["heatmaps"], data["gt_pos"], data["coords"], strict=True):
        prediction = read_maps(maps, coordinates)
        true = truth.transpose(2, 1, 0) - 0.5
        videos.append(
            keypoints.normalised_distances(prediction, true, everywhere(true), keypoints.DIALECTS["vfs"])
        )
    equal(100 * keypoints.pck(videos, data["pck_thresholds"]).mean, data["pck"], 1e-4)


# ---- points, boxes, landmarks, animals, flow


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_tapvid(reference: Reference, mode: points.Mode) -> None:
    """Queries, and the measures per video, per track and over the data set."""
    data = reference("metrics_tapvid.npz")
    assert list(points.METRIC_NAMES) == data["dataset_metric_names"].tolist()
    table = []
    for video in data["videos"]:
        key = f"{mode}__{video}__"
        queries = points.sample_queries(
            data[f"points__{video}"] * np.float64(points.SIZE), data[f"occluded__{video}"], mode
        )
        np.testing.assert_array_equal(
            np.column_stack([queries.frame, queries.xy[:, ::-1]]), data[key + "query_points_tyx"][0]
        )
        np.testing.assert_array_equal(queries.occluded, data[key + "gt_occluded"][0])
        if key + "trackgroup" in data:
            np.testing.assert_array_equal(queries.track, data[key + "trackgroup"][0])
        arguments = (
            queries.frame,
            data[key + "gt_tracks"][0],
            data[key + "gt_occluded"][0],
            data[key + "pred_tracks"][0],
            data[key + "pred_occluded"][0],
            mode,
        )
        found = points.tapvid(*arguments)
        tracks = points.tapvid(*arguments, per_track=True)
        for name in points.METRIC_NAMES:
            equal(found[name], data[f"{key}metric__{name}"][0])
            if f"{key}trackwise__{name}" in data:
                equal(tracks[name], data[f"{key}trackwise__{name}"][0])
        table.append([float(value) for value in found.values()])
    means = [dataset_mean(column, official=True).value for column in zip(*table, strict=True)]
    equal(means, data[f"{mode}__dataset_mean"])


def test_tapvid_with_nothing_to_score(reference: Reference) -> None:
    """Tracks that are visible in their query frame only: NaN, and a data set's mean leaves the video out."""
    data = reference("metrics_tapvid.npz")
    found = points.tapvid(
        data["degenerate__query_points"][0, :, 0].astype(np.int64),
        data["degenerate__target_points"][0],
        data["degenerate__occluded"][0],
        data["degenerate__pred_tracks"][0],
        data["degenerate__pred_occluded"][0],
    )
    for name, value in found.items():
        equal(value, data[f"degenerate__metric__{name}"][0])
    mean = dataset_mean([float(found["average_jaccard"]), 0.5])
    assert mean == (0.5, 1, 2)


def test_otb(reference: Reference) -> None:
    """got10k's toolkit and both pysot toolkits, NaN, inf, empty boxes and invalid truth included."""
    data = reference("metrics_otb.npz")
    equal(boxes.OVERLAPS, data["thresholds_got10k_overlap"])
    collected: dict[str, list[boxes.TrackingScores]] = {"got10k": [], "pysot_toolkit": [], "stvir_pysot": []}
    for name in data["sequences"]:
        truth, prediction = data[f"gt__{name}"], data[f"pred__{name}"]
        written = boxes.as_written(prediction, truth)
        np.testing.assert_array_equal(written, data[f"got10k__boxes_after_rounding__{name}"])
        equal(boxes.iou(written, truth), data[f"got10k__iou__{name}"])
        equal(boxes.centre_error(written, truth), data[f"got10k__center_error__{name}"])
        equal(boxes.normalised_centre_error(written, truth), data[f"got10k__norm_center_error__{name}"])
        scores = boxes.otb_got10k(prediction, truth)
        equal(scores.success, data[f"got10k__success_curve__{name}"])
        equal(scores.precision, data[f"got10k__precision_curve__{name}"])
        line = boxes.headline(scores)
        equal([line.success, line.precision, line.success_rate], data[f"got10k__scores__{name}"])
        collected["got10k"].append(scores)
        for key, toolkit in (("pysot_toolkit", "pysot-toolkit"), ("stvir_pysot", "stvir")):
            scores = boxes.otb_pysot(prediction, truth, toolkit)
            equal(scores.success, data[f"{key}__success__{name}"])
            equal(scores.precision, data[f"{key}__precision__{name}"])
            equal(scores.normalised_precision, data[f"{key}__norm_precision__{name}"])
            collected[key].append(scores)
    mean = boxes.mean_curves(collected["got10k"])
    equal(mean.success, data["got10k__overall_success_curve"])
    equal(mean.precision, data["got10k__overall_precision_curve"])
    line = boxes.headline(mean)
    equal([line.success, line.precision, line.success_rate], data["got10k__overall_success_precision_rate"])
    for key in ("pysot_toolkit", "stvir_pysot"):
        line = boxes.headline(boxes.mean_curves(collected[key]))
        equal(line[:3], data[f"{key}__overall_success_precision20_normprecision20"])


def test_otb_of_vfs(reference: Reference) -> None:
    """got10k's numbers again; stored as float32, boxes too."""
    data = reference("vfs_otb.npz")
    videos = []
    for i in numbered(data, "gt_"):
        truth, prediction = data[f"gt_{i}"].astype(np.float64), data[f"pred_{i}"].astype(np.float64)
        written = boxes.as_written(prediction, truth)
        equal(boxes.iou(written, truth), data[f"iou_{i}"], 2e-6)
        equal(boxes.centre_error(written, truth), data[f"center_error_{i}"], 2e-5)
        videos.append(boxes.otb_got10k(prediction, truth))
        equal(videos[-1].success, data[f"success_curve_{i}"], 1e-6)
        equal(videos[-1].precision, data[f"precision_curve_{i}"], 1e-6)
    mean = boxes.mean_curves(videos)
    equal(mean.success, data["overall_success_curve"], 1e-6)
    equal(mean.precision, data["overall_precision_curve"], 1e-6)
    line = boxes.headline(mean)
    equal(line.success, data["overall_success_score"], 1e-6)
    equal(line.precision, data["overall_precision_score"], 1e-6)
    equal(line.success_rate, data["overall_success_rate"], 1e-6)


def test_300vw(reference: Reference) -> None:
    """Errors, curve, AUC and accuracy of 68 and 49 points; mmpose's pooling; every reading of RMSE."""
    data = reference("metrics_300vw.npz")
    truths = [data[f"gt__{i}"] for i in numbered(data, "gt__")]
    predictions = [data[f"pred__{i}"] for i in numbered(data, "pred__")]
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    np.testing.assert_array_equal(landmarks.INNER_49, data["idx49"])
    for prefix, selection in (("sbr68", None), ("sbr49", landmarks.INNER_49)):
        errors = landmarks.frame_errors(prediction, truth, points=selection)
        scores = landmarks.landmark_scores(errors)
        equal(scores.nme, data[f"{prefix}__nme_fraction"])
        equal(100 * scores.accuracy, data[f"{prefix}__acc_percent_error_below_0.08"])
        areas = [landmarks.landmark_scores(errors, 0.07).auc, scores.auc]
        equal(areas, data[f"{prefix}__auc07_auc08_fraction"])
    errors = landmarks.frame_errors(prediction, truth)
    equal(errors, data["sbr68__per_frame_error_fraction"])
    curve = data["sbr68__pck_curve"]
    equal(landmarks.error_curve(errors, curve[-1, 0], len(curve)), curve)
    videos = [
        landmarks.landmark_scores(landmarks.frame_errors(p, t))
        for p, t in zip(predictions, truths, strict=True)
    ]
    equal([(v.nme, 100 * v.accuracy) for v in videos], data["sbr68__per_video_nme_acc08"])
    visible = data["visible"]
    masked = landmarks.frame_errors(prediction, truth, visible)
    equal(masked.mean(), data["sbr68_masked__nme_fraction"])
    equal(landmarks.pooled_error(prediction, truth), data["mmpose_all__nme_fraction"], 1e-7)
    equal(landmarks.pooled_error(prediction, truth, visible), data["mmpose_masked__nme_fraction"], 1e-7)
    box = landmarks.pooled_error(prediction, truth, boxes=data["bbox_xyxy"])
    equal(box, data["mmpose_bbox__nme_fraction"], 1e-7)
    readings = landmarks.rmse_readings(prediction, truth)
    assert len(readings) == len(data["plain__names"])
    equal(list(readings.values()), data["plain__values"])


def test_badja(reference: Reference) -> None:
    """Per video and the mean; float32."""
    data = reference("metrics_badja.npz")
    percent = []
    for i in numbered(data, "segmentation__"):
        right = badja.correct(
            data[f"pred_xy__{i}"], data[f"gt_xy__{i}"], data[f"visible__{i}"], data[f"segmentation__{i}"]
        )
        percent.append(100 * right.mean())
        equal(percent[-1], data[f"pck_percent__{i}"], 1e-5)
    equal(np.mean(percent), data["mean_over_videos_percent"], 1e-5)


def test_flow(reference: Reference) -> None:
    """KITTI's mean of means and pooled outliers, Sintel's pooled pixels; float32."""
    data = reference("metrics_flow.npz")
    frames = [
        flow.tally(flow.errors(data[f"pred_uv__{i}"], data[f"gt_uv__{i}"], data[f"valid__{i}"]))
        for i in numbered(data, "valid__")
    ]
    kitti = flow.kitti(frames)
    equal(kitti["epe"], data["kitti__epe_mean_of_frame_means"], 1e-5)
    equal(100 * kitti["fl_all"], data["kitti__fl_all_percent_pooled"], 1e-5)
    frames = [
        flow.tally(flow.errors(data[f"sintel_pred_uv__{i}"], data[f"sintel_gt_uv__{i}"]))
        for i in numbered(data, "sintel_gt_uv__")
    ]
    epe, *shares = flow.sintel(frames).values()
    equal(epe, data["sintel__epe"], 1e-5)
    equal(shares, data["sintel__frac_below_1_3_5px"])
