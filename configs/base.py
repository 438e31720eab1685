"""Every field of a run, its default and what it means; every other config starts from here."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Return the defaults: the XLM recipe (Lample & Conneau 2019) at a small size."""
    parse(arg)
    config = ConfigDict()
    config.seed = 0  # masks, dropout, initial parameters, order of the data

    config.data = data = ConfigDict()
    data.languages = ("en",)  # codes of xlmjax.languages that the model has embeddings for
    data.pairs = ()  # "en-fr": languages of parallel text, each pair named once, in any order
    # Where text comes from: FORMAT:PATTERN. Formats: `text` one example a line; `aligned` two files
    # line by line; `tsv` two columns; `keyed` KEY<tab>text in two files, joined on KEY; `demo` the
    # built-in generator. Patterns hold {lang} (text, aligned, keyed) or {a} and {b} (tsv; both
    # orders are looked for) and may be globs; .gz is read as such. {lang=en} in a pattern of text
    # is "en" and keeps the pattern to that language. [START:STOP:STEP] behind a pattern of one file
    # (text, aligned, tsv) takes some of its lines, as Python slices do: "text:x.{lang=en}[:14500]".
    data.train = ConfigDict({"text": ("demo:",), "parallel": ("demo:",), "xnli": ()})
    data.validation = ConfigDict({"text": ("demo:",), "parallel": ("demo:",), "xnli": ()})
    # `xnli`: "tsv:PATTERN" with {lang}; a premise, a hypothesis and a label a line. Without any,
    # the tasks xnli.LANG come from TFDS.
    data.test = ConfigDict({"text": (), "parallel": (), "xnli": ()})  # for evaluators only
    data.modules = ()  # Python modules that register further seqio tasks, imported by `prepare`
    # What to train on: seqio mixture or task names; "mlm", "clm" and "ae" stand for `mlm.LANG`, ...
    # of every language, "tlm" for `tlm.A_B` and "mt" for `mt.A_B` and `mt.B_A` of every pair above.
    data.mixture = ("mlm",)
    data.stores = "runs/stores"  # where prepared token stores live
    data.auto_prepare = True  # `train` prepares missing stores in a child process
    data.num_shards = 4  # shards a store; the content does not depend on it
    # SentencePiece model, or the BPE of XLM as `xlmjax convert` writes it
    data.vocabulary = "runs/vocabulary.model"
    data.bos = False  # True: texts begin with <s>, as in XLM-R, not with </s>, as in XLM
    data.lowercase = False  # True with strip_accents: the preprocessing of XLM-15
    data.strip_accents = False  # removes combining marks (Unicode Mn) after NFD
    data.max_words = 0  # lines of more white-space words are dropped and counted; 0 keeps all
    data.max_tokens = 0  # examples of more tokens are dropped and counted; 0 keeps all
    # What `prepare` says of the text besides, see docs/data_doctor.md.
    data.doctor = ConfigDict()
    data.doctor.examine = True  # False: no look at the text, where nothing is dropped either
    # Findings for which training examples are dropped and counted: control_characters |
    # wrong_script | identical_sides | length_ratio | duplicate | evaluation_line | evaluation_ngram
    data.doctor.drop = ()
    data.doctor.max_length_ratio = 3.0  # of the longer side of a pair to the shorter
    data.doctor.min_script_share = 0.5  # of a line's letters that are of its language's script
    data.doctor.max_shown = 5  # examples of a finding in findings.json
    # stream (text only) | pack (several examples a row) | pad (one a row), see docs/sampling.md
    data.layout = ConfigDict(
        {"text": "stream", "pair": "pack", "labelled": "pack", "translation": "pack"}
    )
    # Mixing: alpha | temperature | unimax | explicit, see docs/sampling.md.
    data.mixing = ConfigDict()
    data.mixing.kind = "alpha"
    data.mixing.alpha = 0.7  # q ~ p^alpha: 1.0 follows the corpus, 0.0 is uniform
    data.mixing.temperature = 1.0  # q ~ p^(1/temperature), for kind="temperature"
    data.mixing.max_epochs = 4.0  # for kind="unimax"
    data.mixing.rates = ()  # (("mlm.en", 2.0), ...), for kind="explicit"
    data.mixing.languages = ()  # empty: all; otherwise tasks of other languages rest (for stages)
    data.mixing.pair_share = 0.5  # rows that come from pairs (TLM); -1 leaves it to mixing
    # Stages ((first step, "field=value", ...), ...) change fields of `mixing` on the way, e.g.
    # ((100_000, "alpha=0.5"), (200_000, "alpha=0.3", "languages=en+fr")).
    data.mixing.stages = ()
    data.prefetch = 2  # batches read ahead
    data.verify = True  # check the checksum of every shard before the first step

    config.vocab = vocab = ConfigDict()  # for `xlmjax vocab`
    vocab.size = 32_000
    vocab.kind = "unigram"  # unigram | bpe
    vocab.alpha = 0.5  # lines a language are sampled in proportion to p^alpha
    vocab.max_lines = 1_000_000  # lines over all languages that the trainer sees
    vocab.character_coverage = 0.9999
    vocab.byte_fallback = True
    # A vocabulary file of which the most needed pieces are taken; nothing is trained then. For runs
    # that begin from a checkpoint of more languages: checkpoint.init_vocabulary.
    vocab.subset_of = ""

    config.model = model = ConfigDict()
    model.embed_dim = 256
    model.num_layers = 6
    model.decoder_layers = 0  # above 0: encoder and decoder, for translation
    model.share_embeddings = False  # encoder and decoder have one table; XLM: one each
    model.num_heads = 8
    model.mlp_dim = 0  # 0 means 4 * embed_dim
    model.max_positions = 512
    model.positions = "learned"  # learned | sinusoidal | rope
    model.position_offset = 0  # row of position 0 in the table of learned ones; XLM-R: 2
    model.token_types = 0  # XLM-R: 1, a table of which every token gets the first row
    model.rope_base = 10_000.0
    model.norm = "post"  # post | pre
    model.norm_kind = "layer"  # layer | rms
    model.norm_epsilon = 1e-12
    model.embedding_norm = True  # XLM-R XL has none
    model.mlp = "gelu"  # gelu (exact) | relu | geglu
    model.bias = True  # in dense layers and norms
    model.language_embeddings = True  # of the encoder; a decoder always has them
    model.tie_embeddings = True
    model.head_transform = False  # XLM-R: dense, GELU and norm before the vocabulary projection
    model.dropout = 0.1
    model.attention_dropout = 0.1
    model.dtype = "bfloat16"  # of the computation; parameters are float32
    # auto | xla | splash, pallas (TPU) | cudnn, triton (GPU): docs/attention.md
    model.attention = "auto"
    model.remat = "none"  # none | full | dots
    model.scan_layers = True
    # What of a text a classifier sees: first | mean | difference (of a pair's sides).
    model.pooling = "first"
    model.classifier_dropout = 0.0
    # LoRA beside every affine map of the layers; 0 is none. Freeze the rest with optimizer.scales:
    # ((r".*(lora|classifier).*", 1.0), (r".*", 0.0)).
    model.lora_rank = 0
    model.lora_alpha = 16.0  # what LoRA adds is scaled by lora_alpha / lora_rank
    # Words at a time in the cross entropy, on each device: 0 takes all in one product, -1 does so
    # unless that makes more than 2^27 logits there or, under fsdp, gathers more than 2^25 numbers.
    model.head_tile = -1

    # Objectives: name -> group. One update sums the groups, each on its share of the rows.
    config.objectives = ConfigDict()
    config.objectives.mlm = objective("masked_lm")  # the name is also that of its metrics

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adamw"  # adamw | adafactor | lion | muon
    optimizer.learning_rate = 1e-4
    optimizer.schedule = "inverse_sqrt"  # inverse_sqrt | linear | cosine | wsd | constant
    optimizer.warmup_steps = 4_000
    optimizer.decay_steps = 0  # length of the final decay of wsd; 0 means a tenth of num_steps
    optimizer.final_scale = 0.0  # learning rate at the end of linear, cosine and wsd, as a factor
    optimizer.b1 = 0.9
    optimizer.b2 = 0.98
    optimizer.eps = 1e-8
    optimizer.weight_decay = 0.0
    # The first regex that matches a parameter's path says whether it decays; each must match one.
    optimizer.decay_mask = ((r".*(bias|norm|scale).*", False), (r".*", True))
    # Factors of the learning rate: (regex, number or schedule), the first that matches; 0 freezes.
    # Layers have numbers: (("transformer/layers/[0-5]/.*", 0.0), ("classifier/.*", 10.0), ...).
    optimizer.scales = ((r".*", 1.0),)
    optimizer.clip_norm = 5.0  # global L2 norm; 0 disables
    optimizer.skip_nonfinite = False  # True skips such updates and counts them; False stops the run

    config.mesh = mesh = ConfigDict()
    mesh.replica = 1  # slices
    mesh.data = -1  # -1: all the devices that the other axes leave
    mesh.fsdp = 1
    mesh.tensor = 1
    mesh.strategy = "fsdp_tensor"  # a table of xlmjax.parallel.rules

    config.train = train = ConfigDict()
    train.num_steps = 10_000
    train.rows = 64  # global batch
    train.length = 256  # tokens a row
    train.microbatches = 1  # gradient accumulation by scan
    train.num_cpu_devices = 0  # simulated devices for a run on the CPU; 0 leaves it to JAX
    train.z_loss = 0.0
    # What follows: docs/running.md. A process not heard of for so long is dead, and the run ends.
    train.heartbeat_seconds = 100
    # Stacks are printed when no step ends for so long (10 times as long for set-up, restoring,
    # compiling, evaluating and saving); 0 is never. With `watchdog_exit` the process ends too, with
    # code 75.
    train.watchdog_seconds = 600.0
    train.watchdog_exit = False
    # Folder of compiled programs; empty: `compiled` beside a workdir in a bucket, for restarts on
    # other machines, else on this disk. JAX_COMPILATION_CACHE_DIR has precedence.
    train.compilation_cache = ""

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 1_000
    checkpoint.keep = 3  # latest ones
    checkpoint.keep_every = 0  # besides, every n-th step for good; 0 keeps none
    # e.g. eval/perplexity/mlm/average/loss, of which the lowest is kept, or eval/mt/average/bleu,
    # of which the highest is.
    checkpoint.best_metric = ""
    checkpoint.keep_best = 1
    checkpoint.average = 1  # eval, embed, translate: mean parameters of the newest n checkpoints
    checkpoint.resume_from = ""  # whole state of another workdir
    checkpoint.same_data = True  # False lets a run go on with other data, rows or seed than before
    # Parameters only, with a report of what was renamed or skipped. With a decoder: one place for
    # both halves, or two, "ENCODER,DECODER", either of which may be empty.
    checkpoint.init_from = ""
    # Vocabulary file of the checkpoint in init_from, where data.vocabulary is another: rows of
    # pieces that both have are copied, others are means of what the old one splits them into.
    checkpoint.init_vocabulary = ""
    # ((regex, size), ...): parameters of init_from, by their names in the report, are scaled to
    # this root mean square. For large tables, whose words a decoder has trouble to unlearn.
    checkpoint.init_rms = ()
    # Files of word vectors, in the text format of word2vec, for the embeddings of a fresh model:
    # those of `xlmjax vectors`, fastText, MUSE or VecMap. Scaled to the size of fresh ones.
    checkpoint.init_vectors = ()

    # name -> evaluator: `perplexity`, `classification`, `translation`, `round_trip`, `retrieval`,
    # `word_translation`
    config.evals = ConfigDict()

    # Several runs of one config: each point with each seed, in a folder of its own under the
    # workdir; `train` runs them one after another, `eval` prints one table and writes sweep.json.
    config.sweep = sweep = ConfigDict()
    sweep.points = ()  # "field=value,field=value" each, e.g. "optimizer.learning_rate=1e-4"
    sweep.seeds = ()  # empty: config.seed
    sweep.select = "xnli"  # entry of config.evals whose scores select run and step
    sweep.report = "xnli"  # entry of config.evals whose scores are reported

    config.log = log = ConfigDict()
    log.every = 50
    log.tensorboard = True
    log.progress = "auto"  # auto | bar | lines | none
    # (first, first after) steps to trace for TensorBoard; () none. SIGUSR1 traces the next 5 steps.
    log.profile = ()
    config.lock()  # a misspelt field is an error
    config.objectives.unlock()
    config.objectives.mlm.lock()
    config.evals.unlock()
    return config


def objective(name: str, **fields) -> ConfigDict:
    """Return one entry of `config.objectives`, all fields present so that overrides are typed."""
    group = ConfigDict()
    # masked_lm | causal_lm | classification | translation | denoising | back_translation
    group.name = name
    group.mixture = ()  # as data.mixture; empty means data.mixture
    group.layout = ""  # stream | pack | pad of all its tasks; empty: as data.layout says
    group.length = 0  # tokens a row; 0: train.length
    # Of packed text that stays whole: sentences a row at most, and tokens of the longest with its
    # delimiters; longer ones are dropped and counted. 0 and 0: what exceeds a row is cut.
    group.sentences = group.sentence_length = 0
    group.share = 1.0  # of train.rows
    group.weight = ((0, 1.0),)  # schedule ((step, value), ...): piecewise linear
    group.rate = ((0, 0.15),)  # schedule of the share of tokens that are targets
    group.max_rate = 0.0  # static bound of `rate`; 0 means its largest value
    group.mask_keep_random = (0.8, 0.1, 0.1)
    group.labels = ()  # of classification: names, in the order in which the task numbers them
    group.sample_alpha = 0.0  # targets chosen in proportion to frequency^-alpha; 0 is uniform
    group.label_smoothing = 0.0  # of translation, denoising and back_translation
    group.shuffle = 3.0  # of denoising: words move by less than so many places; 0 leaves the order
    group.drop = 0.1  # of denoising: share of the words left out
    group.blank = 0.1  # of denoising: share of the words masked
    group.whole_words = False  # of denoising: pieces of a word share its fate
    group.steps = ()  # of back_translation: "en-de-en" translates English to German and back
    group.temperature = 0.0  # of back_translation: 0 takes the best word, as XLM does
    group.min_count = 0  # of back_translation: into tokens this frequent in its text; 0: into any
    group.lock()
    group.update(fields)
    return group


def perplexity(tasks: tuple[str, ...], split: str = "validation", **fields) -> ConfigDict:
    """Return one entry of `config.evals`: masked perplexity of held-out tasks."""
    evaluator = ConfigDict()
    evaluator.name = "perplexity"
    evaluator.objective = "masked_lm"  # masked_lm | causal_lm
    evaluator.tasks = tasks
    evaluator.split = split
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.rows = 64
    evaluator.max_rows = 0  # rows a task, evenly spaced; 0 reads all
    evaluator.rate = 0.15
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def retrieval(tasks: tuple[str, ...], split: str = "validation", **fields) -> ConfigDict:
    """Return one entry of `config.evals`: do sentences find their translations? Both ways."""
    evaluator = ConfigDict()
    evaluator.name = "retrieval"
    evaluator.tasks = tasks  # of pairs: tlm.A_B, or mixtures of them
    evaluator.split = split
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.rows = 64  # sentences a batch
    evaluator.max_pairs = 0  # a task, evenly spaced; 0 takes all
    evaluator.max_tokens = 0  # pairs with a longer side are dropped and counted; 0: max_positions
    evaluator.layer = -1  # states after which layer: 0 embeddings, n the n-th, -1 the last
    evaluator.pooling = "mean"  # mean (delimiters included) | first
    evaluator.centered = False  # the mean of each side's vectors is taken off them
    evaluator.neighbours = 10  # of CSLS and margin
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def word_translation(
    dictionaries: tuple[str, ...] = (), similarities: tuple[str, ...] = (), **fields
) -> ConfigDict:
    """Return one entry of `config.evals`: translation and similarity of words in the table."""
    evaluator = ConfigDict()
    evaluator.name = "word_translation"
    # "A-B:PATH" of files WORD<tab>WORD, the first column in language A; .gz is read as such.
    evaluator.dictionaries = dictionaries
    evaluator.similarities = similarities  # likewise, WORD<tab>WORD<tab>SCORE
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.neighbours = 10  # of CSLS
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def classification(tasks: tuple[str, ...], split: str = "validation", **fields) -> ConfigDict:
    """Return one entry of `config.evals`: accuracy of the classifier on labelled tasks."""
    evaluator = ConfigDict()
    evaluator.name = "classification"
    evaluator.tasks = tasks
    evaluator.split = split
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.rows = 64
    evaluator.source_languages = ("en",)  # it learns from; averages without them are zero-shot
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def translation(tasks: tuple[str, ...], split: str = "validation", **fields) -> ConfigDict:
    """Return one entry of `config.evals`: BLEU and chrF of translating parallel text."""
    evaluator = ConfigDict()
    evaluator.name = "translation"
    evaluator.tasks = tasks  # mt.SRC_TGT
    evaluator.split = split  # not train, which does not keep the raw text
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.rows = 64  # sentences a batch, times the beams; results do not depend on it
    evaluator.max_lines = 0  # a task, evenly spaced; 0 takes all
    evaluator.lowercase = False  # compare without regard to case
    evaluator.tokenize = ""  # of SacreBLEU; empty: its choice for the target language, 13a mostly
    evaluator.tokenised = False  # also `tokenised_bleu`: multi-bleu.perl on Moses tokens, as XLM
    evaluator.decoding = decoding()
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def round_trip(
    tasks: tuple[str, ...], steps: tuple[str, ...], split: str = "validation", **fields
) -> ConfigDict:
    """Return one entry of `config.evals`: BLEU of text against its way there and back."""
    evaluator = ConfigDict()
    evaluator.name = "round_trip"
    evaluator.tasks = tasks  # of text: ae.LANG or mlm.LANG, one for each language that begins
    evaluator.steps = steps  # e.g. ("en-de-en", "de-en-de")
    evaluator.split = split
    evaluator.every = 1_000  # steps; the last step always evaluates
    evaluator.rows = 64  # sentences a batch, times the beams; results do not depend on it
    evaluator.max_lines = 0  # a task, evenly spaced; 0 takes all
    evaluator.lowercase = False  # compare without regard to case
    evaluator.decoding = decoding()
    evaluator.lock()
    evaluator.update(fields)
    return evaluator


def decoding(**fields) -> ConfigDict:
    """Return how an evaluator translates."""
    section = ConfigDict()
    section.method = "greedy"  # greedy | sample | beam
    section.beams = 4  # of method="beam"
    section.length_penalty = 1.0  # scores are sum log p / length^length_penalty
    section.early_stopping = False  # a beam ends with its n-th hypothesis, not when none can win
    section.temperature = 1.0  # of method="sample"
    section.seed = 0  # of method="sample"
    # An output has at most max_ratio * m + max_extra tokens for a source of m, delimiters included.
    section.max_ratio = 1.5
    section.max_extra = 10
    # Tokens of a source and of an output at most, delimiters included; 0: model.max_positions. A
    # model with positions="rope" may go beyond these.
    section.max_length = 0
    section.over_limit = "error"  # error | cut: longer sources
    section.lock()
    section.update(fields)
    return section


def parse(arg: str, **defaults: str | int | float | bool) -> ConfigDict:
    """Parse the `key=value,...` behind `--config=NAME:`; types follow the defaults."""
    choice = ConfigDict(defaults)
    for item in filter(None, arg.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key not in defaults:
            known = ", ".join(f"{name}={value}" for name, value in defaults.items()) or "none"
            raise ValueError(f"config argument {item!r} is not one of: {known}")
        kind = type(defaults[key])
        choice[key] = value.lower() in ("1", "true", "on") if kind is bool else kind(value)
    return choice
