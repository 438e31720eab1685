"""BLEU and chrF of a corpus, by SacreBLEU (Post 2018), with their signatures."""

from collections.abc import Sequence

import sacremoses
from sacrebleu.metrics import BLEU, CHRF

from xlmjax.data import moses

TOKENISED = "tokenised_bleu"


class CorpusScorer:
    """Scores hypotheses against one reference each; corpus statistics, not averages of sentences.

    "bleu" and "chrf" are SacreBLEU's on plain text. With `tokenised` there is also
    "tokenised_bleu": that of multi-bleu.perl on text tokenised as XLM does (data/moses.py:
    punctuation replaced and normalised, Romanian without diacritics, the Moses tokeniser of the
    language without escapes), without smoothing. `tokenize` names another of
    SacreBLEU's tokenisers than its choice for the language. `signatures` tell what was computed.
    Raises `ValueError`, beginning with `where`, on a tokeniser that is not there, on `tokenised` in
    a language whose words XLM has set apart by another tool, and where there is no reference.
    """

    def __init__(
        self,
        references: Sequence[str],
        language: str,
        *,
        lowercase: bool = False,
        tokenize: str = "",
        tokenised: bool = False,
        where: str = "references",
    ):
        if tokenize and tokenize not in BLEU.TOKENIZERS:
            known = ", ".join(sorted(BLEU.TOKENIZERS))
            raise ValueError(f"{where}.tokenize={tokenize!r} is unknown; known: {known}")
        if not references:
            raise ValueError(f"{where}: no reference to score against: the split is empty")
        self._num_lines = len(references)
        try:
            self._bleu = BLEU(
                lowercase=lowercase,
                tokenize=tokenize or None,
                trg_lang=language,
                references=[references],
            )
        except RuntimeError as error:  # the tokenisers of Japanese and Korean are packages apart
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{where}.tokenize={tokenize!r} for {language!r}: {reason} Or name another, e.g. "
                "'char'"
            ) from None
        self._chrf = CHRF(lowercase=lowercase, references=[references])
        self.signatures = {
            "bleu": str(self._bleu.get_signature()),
            "chrf": str(self._chrf.get_signature()),
        }
        self._tokenised: BLEU | None = None
        if tokenised:
            if language in moses.UNSPACED:
                raise ValueError(
                    f"{where}.tokenised=True: the words of {language!r} are not set apart by "
                    f"spaces, and XLM does it with {moses.UNSPACED[language]}; set False: "
                    "SacreBLEU has a tokeniser of its own for it"
                )
            self._language = language
            self._tokenised = BLEU(
                lowercase=lowercase,
                force=True,
                tokenize="none",
                smooth_method="none",
                references=[[self._words(line) for line in references]],
            )
            self.signatures[TOKENISED] = (
                f"{self._tokenised.get_signature()}|text:sacremoses-{sacremoses.__version__}"
                f"-{language}-normalised"
            )

    def score(self, hypotheses: Sequence[str]) -> dict[str, float]:
        """Return metric -> score, 0 to 100; `ValueError` unless there is one line a reference."""
        if len(hypotheses) != self._num_lines:
            raise ValueError(
                f"{len(hypotheses):,} hypotheses and {self._num_lines:,} references: a corpus "
                "score needs one hypothesis a reference, in the same order"
            )
        scores = {
            "bleu": self._bleu.corpus_score(hypotheses, None).score,
            "chrf": self._chrf.corpus_score(hypotheses, None).score,
        }
        if self._tokenised is not None:
            lines = [self._words(line) for line in hypotheses]
            scores[TOKENISED] = self._tokenised.corpus_score(lines, None).score
        return scores

    def _words(self, text: str) -> str:
        return " ".join(moses.words(text, self._language, fold=False))
