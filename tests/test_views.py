"""Plans and views of utterances."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import write_voices

from speechbrain_ssl.augment import Augment
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.balanced import BalancedSampler
from speechbrain_ssl.dataio.views import (
    UtteranceSampler,
    ViewDataset,
    ViewPlan,
)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """One file whose samples say where they are, and its manifest row."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    soundfile.write(path, np.arange(16000) / 16000, 16000, subtype="FLOAT")
    return pd.DataFrame({"wav": [str(path)], "start": [2000], "stop": [14000]})


def rows_of(count):
    return pd.DataFrame({"wav": [f"{n:03d}" for n in range(count)]})


def test_every_utterance_comes_once_before_one_comes_twice():
    sampler = UtteranceSampler(rows_of(13), 4, seed=1, steps_per_epoch=7)
    plans = [[plan.row for plan in batch] for batch in sampler]
    assert len(plans) == len(sampler) == 7
    for first in (0, 3):  # 3 batches of 4 fit into 13
        visit = sum(plans[first : first + 3], [])
        assert len(set(visit)) == 12
    seeds = {plan.seed for batch in sampler for plan in batch}
    assert len(seeds) == 28


def test_epochs_differ_and_a_resumed_epoch_goes_on():
    sampler = UtteranceSampler(rows_of(13), 4, seed=1, steps_per_epoch=7)
    first = list(sampler)
    sampler.start_at(epoch=1, step=3)
    assert list(sampler) == first[3:]
    sampler.start_at(epoch=2, step=0)
    assert list(sampler) != first


def test_an_utterance_is_heard_anew_in_every_epoch():
    plans, seeds = UtteranceSampler(rows_of(13), 4, seed=1), []
    for epoch in (1, 2):
        plans.start_at(epoch, 0)
        seeds += [plan.seed for batch in plans for plan in batch]
    assert len(set(seeds)) == len(seeds) == 24


def test_processes_share_an_epoch_without_overlap():
    parts = [
        list(UtteranceSampler(rows_of(24), 4, 1, rank=rank, processes=2))
        for rank in (0, 1)
    ]
    rows = [plan.row for part in parts for batch in part for plan in batch]
    assert sorted(rows) == list(range(24))


def test_labels_follow_the_identity(tmp_path):
    rows = rows_of(4).assign(spk_id=["b", "a", "b", "a"])
    assert list(UtteranceSampler(rows, 2, 1).entries) == [0, 1, 2, 3]
    speakers = UtteranceSampler(rows, 2, 1, identity="speaker")
    assert list(speakers.entries) == [1, 0, 1, 0]
    assert speakers.names == ["a", "b"]


def test_views_are_pieces_of_the_manifest_span(ramp):
    dataset = ViewDataset(ramp, [7], seconds=[0.3, 0.1], views=[2, 4])
    starts = set()
    for visit in range(20):
        item = dataset[ViewPlan(0, (1, 1, visit, 0))]
        for view in (*item["views_0"], *item["views_1"]):
            places = (view * 16000).round()
            assert torch.equal(
                places - places[0], torch.arange(len(view)).float()
            )
            assert 2000 <= places[0] and places[-1] < 14000
            starts.add(int(places[0]))
        assert int(item["labels"]) == 7
    assert len(starts) > 100  # drawn anew for every view


def test_the_same_plan_gives_the_same_views(ramp, tmp_path):
    for kind in ("noise", "music"):
        (tmp_path / "n" / kind).mkdir(parents=True)
        draw = np.random.default_rng(0).normal(0, 0.1, 20000)
        soundfile.write(tmp_path / "n" / kind / "a.wav", draw, 16000)
    augment = Augment(str(tmp_path / "n"), noise_probability=1.0)
    datasets = [
        ViewDataset(ramp, [0], [0.3, 0.1], [2, 4], augment=augment)
        for _ in range(2)
    ]
    plan = ViewPlan(0, (1, 2, 0, 0))
    one, other = (dataset[plan] for dataset in datasets)
    assert all(torch.equal(one[name], other[name]) for name in one)
    noises = [
        view - torch.arange(len(view)) / 16000 - view[0]
        for view in one["views_0"]
    ]
    assert not torch.allclose(*noises, atol=1e-3)  # its own for each view


def test_files_beside_the_kinds_are_one_kind(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, 8000)
    for name in ("a", "b", "c", "music/d", "babble/deep/e"):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, 16000)
    noises = Augment(str(tmp_path)).noises
    counts = {kind: len(files) for kind, files in noises.items()}
    assert counts == {"noise": 3, "music": 1, "babble": 1}


def test_a_file_shorter_than_the_long_crop_is_repeated(ramp):
    dataset = ViewDataset(ramp, [0], seconds=[1.0, 0.5], views=[2, 1])
    item = dataset[ViewPlan(0, (1, 1, 0, 0))]
    whole = torch.arange(2000, 14000).float() / 16000
    for view in item["views_0"]:
        torch.testing.assert_close(view[:12000], whole)
        torch.testing.assert_close(view[12000:], whole[:4000])


def test_a_file_shorter_than_all_crops_is_repeated_on_request(ramp):
    dataset = ViewDataset(ramp, [0], [1.0], [2], repeat_short=True)
    for view in dataset[ViewPlan(0, (1, 1, 0, 0))]["views_0"]:
        torch.testing.assert_close(view[12000:], view[:4000])


def test_a_long_file_is_read_in_part(ramp):
    dataset = ViewDataset(
        ramp, [0], seconds=[0.1, 0.05], views=[2, 4], span_seconds=0.2
    )
    firsts = []
    for visit in range(30):
        item = dataset[ViewPlan(0, (1, 1, visit, 0))]
        starts = [v[0] for v in (*item["views_0"], *item["views_1"])]
        ends = [v[-1] for v in (*item["views_0"], *item["views_1"])]
        assert max(ends) - min(starts) < 0.2
        firsts.append(float(min(starts)))
    assert max(firsts) - min(firsts) > 0.3  # anywhere in the file


def test_clean_views_stay_as_they_are(tmp_path):
    folder = write_voices(tmp_path / "voices", 1)
    path = str(next(folder.rglob("*.wav")))
    rows = pd.DataFrame({"wav": [path], "start": [0], "stop": [16000]})
    (tmp_path / "n").mkdir()
    soundfile.write(
        tmp_path / "n" / "a.wav",
        np.random.default_rng(0).normal(0, 1, 99),
        16000,
    )
    augment = Augment(str(tmp_path / "n"), noise_probability=1.0)
    dataset = ViewDataset(
        rows, [0], [1.0], [3], augment=augment, augmentations=["clean"]
    )
    views = dataset[ViewPlan(0, (1, 1, 0, 0))]["views_0"]
    clean = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    assert torch.equal(views[0], clean)
    assert not torch.equal(views[1], clean)
    assert not torch.equal(views[1], views[2])


def test_a_balanced_batch_has_as_many_of_each_of_some_speakers():
    speakers = np.repeat(list("abcdefg"), [5, 3, 4, 9, 1, 3, 3])
    rows = rows_of(28).assign(spk_id=speakers)
    parts = [
        list(BalancedSampler(rows, 6, 1, 2, processes=2, rank=rank))
        for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [2, 2]  # of 28 / (2 x 3 x 2)
    for one, other in zip(*parts):
        plans = [*one, *other]
        met = [speakers[plan.row] for plan in plans]
        assert len(set(met)) == 6 and met[::2] == met[1::2]
        assert len({plan.seed for plan in plans}) == 12  # no crop twice
        repeated = [p.row for p in plans if speakers[p.row] != "e"]
        assert len(set(repeated)) == len(repeated)


def test_a_speaker_takes_its_utterances_in_turn():
    rows = rows_of(12).assign(spk_id=list("aaaaaabbbbbb"))
    sampler = BalancedSampler(rows, 4, 1, 2, steps_per_epoch=3)
    plans = [[plan.row for plan in batch] for batch in sampler]
    assert sorted(sum(plans, [])) == list(range(12))
    sampler.start_at(epoch=1, step=1)
    assert [[plan.row for plan in batch] for batch in sampler] == plans[1:]
    sampler.start_at(epoch=2, step=0)
    assert [[plan.row for plan in batch] for batch in sampler] != plans


def test_kept_rows_stay_with_their_speaker():
    rows = rows_of(8).assign(spk_id=list("abababab"))
    sampler = BalancedSampler(rows, 2, 1, 2)
    assert [own.tolist() for own in sampler.rows_of] == [
        [0, 2, 4, 6],
        [1, 3, 5, 7],
    ]
    sampler.keep(np.array([1, 2, 5, 6, 7]))
    assert [own.tolist() for own in sampler.rows_of] == [[2, 6], [1, 5, 7]]


def test_a_balanced_batch_may_be_larger_than_the_corpus():
    rows = rows_of(6).assign(spk_id=list("aabbcc"))
    sampler = BalancedSampler(rows, 12, 1, 4)
    (batch,) = sampler
    assert sorted(plan.row for plan in batch) == sorted([*range(6)] * 2)
    assert len({plan.seed for plan in batch}) == 12  # other crops and noise
    with pytest.raises(BadInputError, match="needs 12 utterances"):
        BalancedSampler(rows, 12, 1)


def test_balanced_batches_that_cannot_be_filled_are_refused():
    rows = rows_of(12).assign(spk_id=list("aaaaaabbbbbb"))
    with pytest.raises(BadInputError, match="needs 3 speakers, the corpus has"):
        BalancedSampler(rows, 6, 1, 2)
    with pytest.raises(BadInputError, match="3 utterances of each speaker do"):
        BalancedSampler(rows, 8, 1, 3)
    plain = BalancedSampler(rows, 6, 1)
    assert list(plain) == list(UtteranceSampler(rows, 6, 1))


def test_each_view_is_augmented_in_its_own_way(ramp, tmp_path):
    folder = tmp_path / "n" / "music"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0).normal(0, 0.1, 20000)
    soundfile.write(folder / "a.wav", draw, 16000)
    room = np.zeros(400)
    room[[50, 300]] = 1.0, 0.5
    soundfile.write(tmp_path / "room.wav", room, 16000)
    (tmp_path / "r").mkdir()
    (tmp_path / "room.wav").rename(tmp_path / "r" / "room.wav")
    augment = Augment(str(tmp_path / "n"), str(tmp_path / "r"), 0.0, 0.0)
    kinds = ["clean", "room", "music", "one"]
    dataset = ViewDataset(
        ramp, [0], [0.3], [5], 16000, augment, kinds, shared_crops=True
    )
    ones = set()
    for visit in range(8):
        views = dataset[ViewPlan(0, (1, 1, visit, 0))]["views_0"]
        clean = views[0]
        assert torch.equal(views[4], clean)  # random, with probabilities of 0
        echo = clean.clone()
        echo[250:] += 0.5 * clean[:-250]
        echo *= clean.square().mean().sqrt() / echo.square().mean().sqrt()
        torch.testing.assert_close(views[1], echo, atol=1e-5, rtol=1e-4)
        noise = views[2] - clean
        ratio = clean.square().mean() / noise.square().mean()
        assert 2.9 < 10 * ratio.log10() < 18.1
        rough = (views[3] - clean).diff().abs().median() > 1e-3
        ones.add("music" if rough else "room")
        assert not torch.equal(views[3], clean)
    assert ones == {"music", "room"}


def test_kinds_of_augmentation_go_on_in_the_short_views(ramp, tmp_path):
    (tmp_path / "n").mkdir()
    noise = np.random.default_rng(0).normal(0, 1, 9999)
    soundfile.write(tmp_path / "n" / "a.wav", noise, 16000)
    augment = Augment(str(tmp_path / "n"), noise_probability=1.0)
    dataset = ViewDataset(
        ramp,
        [0],
        [0.3, 0.1],
        [2, 4],
        augment=augment,
        augmentations=["clean"] * 2,
    )
    item = dataset[ViewPlan(0, (1, 1, 0, 0))]
    views = [*item["views_0"], *item["views_1"]]
    rough = [bool(view.diff().std() > 1e-4) for view in views]
    assert rough == [False] * 2 + [True] * 4


def test_unknown_augmentations_are_refused(ramp):
    for kinds, named in (
        (["clean", "rom"], "'rom' is none of random, one, clean"),
        (["room"], "'room' is none of"),  # no folder of rooms
        (["clean"] * 3, "3 augmentations are given for 2 views"),
    ):
        with pytest.raises(BadInputError, match=named):
            ViewDataset(ramp, [0], [0.1], [2], augmentations=kinds)


def test_bad_views_are_refused(ramp):
    for seconds, views, named in (
        ([0.9, 0.8], [2, 4], "the shortest crop has 12800"),
        ([0.1, 0.2], [2, 4], "longest first"),
        ([0.2], [2, 4], "1 lengths are given for 2 groups"),
        ([0.2, 0.1], [2, 0], "1 or more of each"),
    ):
        with pytest.raises(BadInputError, match=named):
            ViewDataset(ramp, [0], seconds=seconds, views=views)


def test_batches_that_the_corpus_cannot_fill_are_refused():
    with pytest.raises(BadInputError, match="needs 8 utterances, the corpus"):
        UtteranceSampler(rows_of(7), 4, seed=1, processes=2)
    with pytest.raises(BadInputError, match="batch_size is 1"):
        UtteranceSampler(rows_of(7), 1, seed=1)
