"""The laboratory page opened from a disk: its tokens, pictures and rewards are Python's."""

import copy
import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, save_images
from scipy.stats import spearmanr
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from rlhf_nb import diffusion, hub, losses, prompts, reward, schedulers, train
from rlhf_nb.page import export
from rlhf_nb.pictures import ImageFolder
from rlhf_nb.toy import world

RUNTIME = ROOT / "book" / "generated" / "onnxruntime"
LEARNING = {"lam": 0.5, "temperature": 2.0, "lr": 2e-3, "updates": 40, "warmup": 20}
SENTENCES = [
    *("Two green cats in the forest.", "An airplane.", "", "   A  RED\tcolored\nhorse  ", "hello, world!"),
    *(
        "it's 12 o'clock; don't",
        "Ünïcode – 日本 🙂 İSTANBUL ΣΑΣ",
        "<|endoftext|> a cat <|STARTOFTEXT|>",
        "''s !!'ll",
    ),
    "many " * 30,
]


@pytest.fixture(scope="module")
def models():
    """Pipeline, tuned U-Net, CLIP and reward, with weights as half precision rounds them."""
    pipe, clip = diffusion.load("toy/pipeline"), reward.Clip("toy/clip")
    torch.manual_seed(0)
    tuned = copy.deepcopy(pipe.unet)
    for weight in tuned.parameters():
        weight.data.mul_(1 + 0.02 * torch.randn(()))
    score = reward.Reward(clip, reward.Head(clip.width, 32))
    for model in (pipe.unet, pipe.vae, pipe.text_encoder, tuned, clip.model, score.model):
        model.half().float()
    return pipe, tuned, clip, score


def shown(folder):
    """Pictures to label and to rank, rendered: the panel and the judge are right."""
    rows = [
        {**row, "use": use}
        for use in ("label", "test")
        for row in prompts.split_rows(prompts.TOY, 40, 4, 4, 40)
        if row["category"] == "combination" and row["use"] == use
    ]
    asked = [prompts.Attributes(r["object"], r["count"], r["colour"], r["background"]) for r in rows]
    drawn = [asked[k - k % 2] for k in range(len(asked))]  # every second shows another prompt's scene
    save_images(folder, world.render(drawn, 1, range(len(drawn))), rows)
    images = ImageFolder(folder)
    good = [float(a == b) for a, b in zip(asked, drawn, strict=True)]
    return export.pictures(images, images.rows.assign(label=good, truth=good))


@pytest.fixture(scope="module")
def laboratory(reader, models, tmp_path_factory):
    """The page's folder, with a tuned model."""
    if importlib.util.find_spec("onnx") is None or not RUNTIME.exists():
        pytest.skip("the page needs onnx and the scripts that `python book/vendor.py` fetches")
    folder = tmp_path_factory.mktemp("laboratory")
    pipe, tuned, clip, score = models
    shutil.copytree(ROOT / "book" / "lab", folder / "lab")
    parts = {"pipe": pipe, "eye": reader, "clip": clip, "score": score, "tuned": tuned}
    about = {"shown": shown(folder / "images"), "updates": 7, "labels": 9, "learnt": True}
    export.write(folder / "lab", RUNTIME, **parts, **about)
    return folder / "lab"


@pytest.fixture(scope="module")
def page(browser, laboratory):
    """The page from the disk: requests elsewhere and what the console says are remembered."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(300_000)
    page.foreign, page.said = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or page.foreign.append(r.url))
    page.goto((laboratory / "index.html").as_uri())
    yield page
    page.close()


def test_what_a_run_has_not_made_is_missing(tmp_path, pipe):
    """Without a run the base model draws and CLIP's similarity ranks; a finished alignment is shown."""
    found = export.parts(tmp_path)
    assert found["shown"] is None
    assert bool(found["labels"]) == found["learnt"] == (hub.ASSETS / "reward").exists()
    assert (found["tuned"] is None) == (not (hub.ASSETS / "tuned").exists())
    diffusion.save_unet(pipe.unet, tmp_path / "align" / "unet")
    (tmp_path / "align" / "manifest.json").write_text('{"settings": {"updates": 7}}')
    found = export.parts(tmp_path)
    assert found["tuned"].config.in_channels == pipe.unet.config.in_channels and found["updates"] == 7


@pytest.mark.browser
def test_tokens_are_the_tokenizers(page, pipe):
    options = {"padding": "max_length", "truncation": True, "max_length": pipe.tokenizer.model_max_length}
    for text in SENTENCES:
        found = page.evaluate("text => [...tokenizer.ids(text)]", text)
        assert found == pipe.tokenizer(text, **options).input_ids, text


@pytest.mark.browser
def test_menus_speak_the_grammar(page):
    for wants in prompts.grammar(prompts.TOY.objects).values():
        for want in wants[::97]:
            asked = {a: v for a in prompts.ATTRIBUTES if (v := getattr(want, a)) is not None}
            assert page.evaluate("wish => prompts.phrase(wish)", asked) == prompts.phrase(want)
            for reworded in (False, True):
                assert page.evaluate("text => prompts.wish(text)", prompts.phrase(want, reworded)) == asked


@pytest.mark.browser
def test_unknown_words_are_said(page):
    page.fill("#prompt", "Two purple dragons in the forest, 3 cats.")
    said = page.inner_text("#unknown")
    assert "“dragons”" in said and "“3”" in said and "forest" not in said and "cats" not in said
    page.select_option("#colour", "red")
    assert page.inner_text("#unknown") == ""
    assert page.input_value("#prompt") == "Two red cats in the forest."


@pytest.mark.browser
@pytest.mark.parametrize("kind", losses.PREDICTIONS)
def test_the_steps_are_the_schedulers(page, pipe, kind):
    """Whatever a U-Net predicts, whatever the number of steps."""
    config, flow = {**pipe.scheduler.config, "prediction_type": kind}, kind == "flow_prediction"
    scheduler = schedulers.solver(config, "FlowMatchEulerDiscreteScheduler" if flow else "DDIMScheduler")
    take = """([schedule, steps, x, outputs]) => {
        const [kept, seen] = [about.schedule, []];
        about.schedule = schedule;
        const solver = new Solver(steps);
        x = Float32Array.from(x);
        for (const output of outputs) seen.push([...(x = solver.step(x, Float32Array.from(output)))]);
        about.schedule = kept;
        return [solver.times, seen];
    }"""
    for steps in (2, 9, 20):
        scheduler.set_timesteps(steps)
        x, outputs, held = torch.randn(6), torch.randn(steps, 6), []
        start = x.tolist()
        for time, output in zip(scheduler.timesteps, outputs, strict=True):
            x = scheduler.step(output, time, x).prev_sample
            held.append(x.tolist())
        given = [export.schedule(scheduler), steps, start, outputs.tolist()]
        scheduler.set_timesteps(steps)
        times, seen = page.evaluate(take, given)
        assert times == scheduler.timesteps.tolist() and np.allclose(seen, held, atol=1e-4)


@pytest.mark.browser
@pytest.mark.parametrize("guidance, steps", [(3.0, 10), (1.0, 3)])
def test_the_pages_picture_is_pythons(page, models, guidance, steps):
    """From the same noise and the same rounded weights, both models, at most two levels apart."""
    prompt, (pipe, tuned, *_) = "Three blue stars on the moon.", models
    noise = torch.stack([diffusion.noise_of(pipe, 0, k) for k in range(2)])
    draw = """async ([name, prompt, noise, how]) => {
        await engine.ready(["text", name, "decoder"]);
        let x;
        for await (x of engine.drawing(name, await engine.text(prompt), Float32Array.from(noise), how));
        return [...(await engine.decode(x)).data];
    }"""
    for name, unet in (("base", pipe.unet), ("tuned", tuned)):
        options = {"guidance": guidance, "steps": steps, "seed": 0, "unet": unet}
        right = diffusion.sample(pipe, [prompt] * 2, **options)
        how = {"guidance": guidance, "steps": steps}
        found = page.evaluate(draw, [name, prompt, noise.flatten().tolist(), how])
        assert np.abs(np.reshape(found, right.shape) - right.astype(int)).max() <= 2


@pytest.mark.browser
def test_judge_and_reward_are_pythons(page, reader, models):
    *_, clip, score = models
    asked = [prompts.Attributes(o, 2, "red", "in the sea") for o in prompts.TOY.objects[:3]]
    images, texts = world.render(asked, 3, range(3)), [prompts.phrase(a) for a in asked]
    measure = """async ([data, side, texts]) => {
        await engine.ready(["judge", "vision", "words", "reward"]);
        const pictures = {data: Uint8Array.from(data), side, count: texts.length};
        const seen = await engine.see(pictures), said = await engine.speak(texts);
        return [await engine.read(pictures), await engine.reward(seen, said)];
    }"""
    read, rewards = page.evaluate(measure, [images.flatten().tolist(), images.shape[1], texts])
    assert [(r["object"], r["count"], r["colour"]) for r in read] == [(a.object, 2, "red") for a in asked]
    assert np.allclose(rewards, score(images, texts), atol=5e-3)


@pytest.mark.browser
def test_the_head_trained_in_the_page_ranks_as_pythons(page, models):
    """The same start, the same steps, both losses, over whole batches."""
    rng, width, hidden, n = np.random.default_rng(0), 16, 24, 12
    image, texts, gallery = (torch.from_numpy(rng.normal(size=(k, width))).float() for k in (n, 40, 60))
    where = torch.from_numpy(rng.integers(0, 40, (n, 8)))
    labels = torch.tensor([1.0, 0.0] * (n // 2))
    torch.manual_seed(0)
    head = reward.Head(width, hidden)
    names = {"image": "image.weight", "bias": "image.bias", "text": "text.weight"}
    names |= {"out": "out.weight", "shift": "out.bias"}
    start = {name: head.get_parameter(of).flatten().tolist() for name, of in names.items()}

    def loss_at(model, step):
        mse = losses.reward_mse(model(image, texts[where[:, :1]])[:, 0], labels).mean()
        good = labels > 0.5
        scores = model(image[good], texts[where[good]])
        pc = losses.prompt_classification(scores, LEARNING["temperature"]).mean()
        return mse + LEARNING["lam"] * pc, {"mse": mse, "pc": pc}

    plan = train.Plan(steps=LEARNING["updates"], lr=LEARNING["lr"], warmup=20, weight_decay=0.05)
    log = list(train.loop(head, [loss_at], plan))
    right = head(gallery, texts[:1].expand(60, 1, -1)).squeeze(1).detach().numpy()
    teach = """([width, hidden, weights, images, texts, candidates, labels, gallery, how]) => {
        const head = new Head(width, hidden, {weights});
        const rows = [...training(head, {images, texts, candidates, labels}, how)];
        return [rows, head.scores(gallery, gallery.map(() => texts[0]))];
    }"""
    lists = (x.tolist() for x in (image, texts, where, labels, gallery))
    how = {**LEARNING, "decay": 0.05, "clip": 1.0}
    rows, scores = page.evaluate(teach, [width, hidden, start, *lists, how])
    assert spearmanr(scores, right).statistic >= 0.99 and np.abs(right - scores).max() < 1e-3
    assert rows[-1]["mse"] < rows[0]["mse"] and len(log) == 2


@pytest.mark.browser
def test_agreement_is_statsmodels(page):
    rng = np.random.default_rng(0)
    a, b = rng.random(12) < 0.5, rng.random(12) < 0.5
    found = page.evaluate("([a, b]) => kappa(a, b)", [a.tolist(), b.tolist()])
    table = [[int(((a == i) & (b == k)).sum()) for k in (0, 1)] for i in (0, 1)]
    assert np.isclose(found["kappa"], cohens_kappa(table).kappa)
    agreed, chance = (a == b).mean(), a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    low, high = (np.array(proportion_confint((a == b).sum(), 12, method="wilson")) - chance) / (1 - chance)
    assert np.allclose([found["low"], found["high"]], [low, high]) and found["agreed"] == 12 * agreed
    x, y = rng.integers(0, 5, 20).tolist(), rng.integers(0, 5, 20).tolist()
    assert np.isclose(page.evaluate("([x, y]) => spearman(x, y)", [x, y]), spearmanr(x, y).statistic)


@pytest.mark.browser
def test_draw_label_and_choose_by_keys(page):
    """The whole way of a reader, with the keyboard alone; nothing is asked of another host."""

    def pressed(button, until):
        page.focus(button)
        page.keyboard.press("Enter")
        page.wait_for_function(f"/{until}|did not work/.test(document.body.innerText)")

    page.fill("#seed", "3")
    pressed("#draw-button", "Both pictures took")
    assert page.locator("#pair .reading").count() == 2 and "sure" in page.inner_text("#pair")
    for picture in page.locator("#pair canvas").all():
        assert picture.bounding_box()["width"] >= 128
        assert "The judge reads number" in picture.get_attribute("aria-label")
    pressed("#label-button", "Picture 1 of 12")
    page.keyboard.type("gbu")
    assert "Picture 2 of 12" in page.inner_text("#label-count")
    page.keyboard.type("bbbgggbbbgg")
    page.wait_for_selector("#ranking h4")
    assert page.evaluate("desk.labels.filter(Boolean).length") == 6
    assert page.locator("#agreement tbody tr").count() == 2 and "of 12" in page.inner_text("#agreement")
    assert page.locator("#ranking img").count() == 24
    page.select_option("#n", "2")
    page.select_option("#by", "yours")
    pressed("#choose-button", "By the judge")
    assert page.locator("#among canvas").count() == 2 and page.locator("#rivals canvas").count() == 2
    assert not page.foreign and not page.said, (page.foreign, page.said)


@pytest.mark.browser
def test_every_control_has_a_name_and_nothing_scrolls_sideways(page):
    nameless = """() => [...document.querySelectorAll("input, select, button, a, img, canvas, svg")]
        .filter((of) => of.checkVisibility() && !(of.labels?.[0] ?? of).textContent.trim())
        .filter((of) => !of.alt && !of.getAttribute("aria-label")).map((of) => of.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for theme, dark in (("dark", True), ("light", False)):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(json.loads(f"[{ground[4:-1]}]")) < 200) == dark
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.browser
def test_without_a_tuned_model_the_page_says_so(browser, laboratory, tmp_path):
    """Nothing else changes: the base model draws."""
    shutil.copytree(laboratory, tmp_path / "lab")
    about = json.loads(
        (laboratory / "about.js").read_text().removeprefix("const about = ").removesuffix(";\n")
    )
    about["sizes"] = {
        name: size for name, size in about["sizes"].items() if name not in ("tuned", "pictures")
    }
    (tmp_path / "lab" / "about.js").write_text(f"const about = {json.dumps(about)};\n")
    page = browser.new_page()
    page.goto((tmp_path / "lab" / "index.html").as_uri())
    assert "no tuned model in this build" in page.inner_text("#pair")
    assert "no labelled pictures in this build" in page.inner_text("#label")
    page.close()
