"""The XLM recipe equals Hugging Face's XLM, and so the original (1e-6 apart), with our weights.

Laws 14 to 16 of XLM: post-norm with eps 1e-12, no scaling of embeddings, exact GELU, zeros at
padding after every layer, key padding and causal masks, a tied projection.
"""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.hf_weights import state_dict
from tests.model_helpers import CLASSIC, EOS, LANGUAGES, MASK, PAD, VOCAB, randomised, text
from xlmjax.objectives.classification import Classification

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="the parity group (torch) is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

# The feed-forward width of XLM is always four times the embedding's; every size is distinct.
PLAIN = dataclasses.replace(
    CLASSIC, embed_dim=24, num_heads=3, mlp_dim=96, dropout=0.0, attention_dropout=0.0
)
CASES = {
    "gelu": PLAIN,
    "relu": dataclasses.replace(PLAIN, mlp="relu"),
    "sinusoidal": dataclasses.replace(PLAIN, positions="sinusoidal"),
    "one language": dataclasses.replace(PLAIN, language_ids=(4,)),
    "untied": dataclasses.replace(PLAIN, tie_embeddings=False),
    "one layer": dataclasses.replace(PLAIN, num_layers=1),
}


def hugging_face(cfg, model, causal=False):
    """Return Hugging Face's model with the parameters of ours."""
    kind = "ForSequenceClassification" if cfg.num_labels else "WithLMHeadModel"
    theirs = getattr(transformers, f"XLM{kind}")(
        transformers.XLMConfig(
            num_labels=cfg.num_labels or 2,
            summary_type="first",
            vocab_size=VOCAB,
            emb_dim=cfg.embed_dim,
            n_layers=cfg.num_layers,
            n_heads=cfg.num_heads,
            gelu_activation=cfg.mlp == "gelu",
            sinusoidal_embeddings=cfg.positions == "sinusoidal",
            causal=causal,
            n_langs=len(cfg.language_ids),
            use_lang_emb=cfg.has_language_table,
            max_position_embeddings=cfg.max_positions,
            layer_norm_eps=cfg.norm_epsilon,
            pad_index=PAD,
            eos_index=EOS,
            mask_index=MASK,
            tie_word_embeddings=cfg.tie_embeddings,
        )
    )
    ours = {name: torch.tensor(value) for name, value in state_dict(model).items()}
    missing, unexpected = theirs.load_state_dict(ours, strict=False)
    fixed = {"transformer.position_ids", "transformer.position_embeddings.weight"}
    tied = {"pred_layer.proj.weight"} if cfg.tie_embeddings and not cfg.num_labels else set()
    assert not unexpected
    assert set(missing) <= tied | (fixed if cfg.positions == "sinusoidal" else set())
    return theirs.eval()


def batch(cfg):
    """Rows of 11, 8 and 5 real tokens, pairs with restarted positions and two languages each."""
    generator = np.random.default_rng(1)
    lengths, cuts, length = np.array([11, 8, 5]), np.array([4, 5, 2]), 11
    place = np.arange(length)
    real, second = place < lengths[:, None], place >= cuts[:, None]
    languages = np.array(cfg.language_ids)
    first_row, second_row = (
        np.array([a, b, c]) % len(languages) for a, b, c in ((0, 1, 2), (2, 0, 1))
    )
    tokens = generator.integers(0, VOCAB, (3, length))  # special ones, too
    return {
        "tokens": np.where(real, tokens, PAD),
        "positions": np.where(second, place - cuts[:, None], place),
        "segment_ids": real.astype(np.int32),
        "language_ids": np.where(
            second, languages[second_row][:, None], languages[first_row][:, None]
        ),
    }


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cfg", CASES.values(), ids=CASES)
def test_hidden_states_and_logits_equal_those_of_hugging_face(cfg, causal):
    assert tuple(sorted(LANGUAGES)) == LANGUAGES
    model, rows = randomised(cfg), batch(cfg)
    theirs = hugging_face(cfg, model, causal)
    row_of = {language: row for row, language in enumerate(cfg.language_ids)}
    langs = np.vectorize(row_of.get)(rows["language_ids"]) if cfg.has_language_table else None
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(rows["tokens"]),
            position_ids=torch.tensor(rows["positions"]),
            langs=None if langs is None else torch.tensor(langs),
            lengths=torch.tensor(rows["segment_ids"].sum(axis=1)),
            output_hidden_states=True,
        )
    hidden = model.encode(*text(rows), causal=causal)
    real = rows["segment_ids"] != 0
    expected = out.hidden_states[-1].numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    assert np.all(np.asarray(hidden)[~real] == 0)
    np.testing.assert_allclose(model.logits(hidden)[real], out.logits.numpy()[real], atol=1e-5)


@pytest.mark.parametrize("labels", [2, 3])
def test_scores_and_loss_of_labels_equal_those_of_hugging_face(labels):
    cfg = dataclasses.replace(PLAIN, num_labels=labels)
    model, rows = randomised(cfg), batch(cfg)
    answers = np.array([1, 0, labels - 1])
    row_of = {language: row for row, language in enumerate(cfg.language_ids)}
    with torch.no_grad():
        out = hugging_face(cfg, model)(
            input_ids=torch.tensor(rows["tokens"]),
            position_ids=torch.tensor(rows["positions"]),
            langs=torch.tensor(np.vectorize(row_of.get)(rows["language_ids"])),
            lengths=torch.tensor(rows["segment_ids"].sum(axis=1)),
            labels=torch.tensor(answers),
        )
    scores = model.classify(*text(rows), np.zeros((3, 1), np.int32))[:, 0]
    np.testing.assert_allclose(scores, out.logits.numpy(), atol=1e-5)
    placed = np.full_like(rows["tokens"], -1)
    placed[:, 0] = answers
    more = {
        "labels": placed,
        "row_ids": np.arange(3, dtype=np.int32),
        "task_ids": np.zeros(3, np.int32),
    }
    names = tuple(f"label {number}" for number in range(labels))
    objective = Classification(names)
    loss = objective.loss(model, {**rows, **more}, jax.random.key(0), 0, deterministic=True)
    np.testing.assert_allclose(loss.sum / loss.weight, out.loss.numpy(), atol=1e-5)
