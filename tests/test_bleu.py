"""BLEU and chrF: SacreBLEU called directly, the paper's tokenised BLEU, and counts of lines."""

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU

from xlmjax.evaluation.bleu import CorpusScorer

HYPOTHESES = [
    "The cat sat on the mat, didn't it?",
    "A second sentence is here.",
    "",
    "no overlap",
]
REFERENCES = [
    "The cat sat on the mat, did it not?",
    "A second sentence was “here”.",
    "Something.",
    "Nothing in common whatever",
]


def test_scores_are_those_of_sacrebleu():
    scorer = CorpusScorer(REFERENCES, "en")
    scores = scorer.score(HYPOTHESES)
    assert scores == {
        "bleu": sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score,
        "chrf": sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score,
    }
    assert 10 < scores["bleu"] < 90
    assert scorer.signatures["bleu"] == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
    assert scorer.signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
    assert scorer.score(HYPOTHESES) == scores  # references are counted once, not used up
    assert scorer.score(REFERENCES)["bleu"] == pytest.approx(100)


def test_case_may_be_disregarded():
    upper = [line.upper() for line in HYPOTHESES]
    scorer = CorpusScorer(REFERENCES, "en", lowercase=True, tokenised=True)
    assert scorer.score(upper) == scorer.score(HYPOTHESES)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], lowercase=True).score
    assert scorer.score(upper)["bleu"] == expected
    assert "case:lc" in scorer.signatures["bleu"]


def test_the_tokeniser_is_that_of_the_language_or_the_one_named():
    assert "tok:zh" in CorpusScorer(["你好"], "zh").signatures["bleu"]
    assert "tok:char" in CorpusScorer(["你好"], "zh", tokenize="char").signatures["bleu"]
    with pytest.raises(ValueError, match=r"evals.a.tokenize='14a' is unknown; known: 13a, char"):
        CorpusScorer(["x"], "en", tokenize="14a", where="evals.a")
    with pytest.raises(ValueError, match=r"evals.a.tokenize='' for 'ja': .*name another"):
        CorpusScorer(["x"], "ja", where="evals.a")


def test_tokenised_bleu_is_that_of_multi_bleu_on_moses_tokens():
    scorer = CorpusScorer(REFERENCES, "en", tokenised=True)
    found = scorer.score(HYPOTHESES)["tokenised_bleu"]
    # As normalize-punctuation.perl and tokenizer.perl -no-escape write them.
    hypotheses = [
        "The cat sat on the mat , didn 't it ?",
        "A second sentence is here .",
        "",
        "no overlap",
    ]
    references = [
        "The cat sat on the mat , did it not ?",
        'A second sentence was " here . "',  # English full stops go inside
        "Something .",
        "Nothing in common whatever",
    ]
    plain = BLEU(tokenize="none", smooth_method="none", force=True)
    assert found == plain.corpus_score(hypotheses, [references]).score
    assert "tok:none|smooth:none" in scorer.signatures["tokenised_bleu"]
    assert "sacremoses" in scorer.signatures["tokenised_bleu"]
    # Unsmoothed: a corpus without a common 4-gram scores 0.
    scores = CorpusScorer(["a b c x y"], "en", tokenised=True).score(["a b c d e"])
    assert scores["tokenised_bleu"] == 0 < scores["bleu"]


def test_another_number_of_hypotheses_is_refused_with_both_counts():
    scorer = CorpusScorer(REFERENCES, "en")
    for lines in (HYPOTHESES[:3], [*HYPOTHESES, "x"], []):
        with pytest.raises(ValueError, match=rf"{len(lines)} hypotheses and 4 references"):
            scorer.score(lines)
    with pytest.raises(ValueError, match=r"evals.x: no reference to score against"):
        CorpusScorer([], "en", where="evals.x")


@pytest.mark.parametrize(
    ("language", "text", "same"),
    [
        ("ro", "Președintele țării știe bine.", "Presedintele tarii stie bine."),
        ("en", "one\uff0ctwo\uff0cthree and fo\u200bur\uff01", "one,two,three and four!"),
    ],
)
def test_tokenised_bleu_is_of_text_cleaned_as_xlm_does(language, text, same):
    scores = CorpusScorer([same], language, tokenised=True).score([text])
    assert scores["tokenised_bleu"] == pytest.approx(100)
    assert scores["bleu"] < 90


def test_tokenised_bleu_is_refused_where_words_are_set_apart_by_another_tool():
    with pytest.raises(ValueError, match=r"evals.a.tokenised=True: .*'zh' are not .* Stanford"):
        CorpusScorer(["你好"], "zh", tokenised=True, where="evals.a")
