//! Train on token tables written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array as _, ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use codepair_runtime::{
    Config, ExitStatus, Manifest, Store, exit_status, float_column, read_output, testing, text_column,
};
use codepair_train::Train;

const VOCABULARY: u16 = 12;

/// burn draws from one generator a process, so only one model at a time repeats exactly.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Sources of three tokens, and targets that are the same tokens backwards.
fn tokens(source: bool) -> RecordBatch {
    let rows = 48u16;
    let ids = |row: u16| [3 + row % 9, 3 + row % 7, 3 + row % 5];
    let bytes: Vec<Vec<u8>> = (0..rows)
        .map(|row| {
            let mut ids = ids(row).to_vec();
            if !source {
                ids.reverse();
            }
            ids.into_iter().flat_map(u16::to_le_bytes).collect()
        })
        .collect();
    let texts = |value: &dyn Fn(u16) -> String| -> ArrayRef {
        Arc::new((0..rows).map(|r| Some(value(r))).collect::<StringArray>())
    };
    let tokens: ArrayRef = Arc::new(bytes.iter().map(|b| Some(b.as_slice())).collect::<BinaryArray>());
    // The name is the source's last token.
    let names: BinaryArray = (0..rows).map(|row| Some(ids(row)[2].to_le_bytes())).collect();
    let lengths: ArrayRef = Arc::new(UInt32Array::from(vec![3; usize::from(rows)]));
    let parents: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; usize::from(rows)]));
    let ordinals: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..rows).map(u64::from)));
    let split = |row: u16| if row.is_multiple_of(4) { "validation" } else { "train" }.to_owned();
    RecordBatch::try_from_iter_with_nullable([
        ("id", texts(&|r| r.to_string()), false),
        ("ordinal", ordinals, false),
        ("source", texts(&|r| if r.is_multiple_of(3) { "third" } else { "rest" }.to_owned()), false),
        ("kind", texts(&|_| "original".to_owned()), false),
        ("name", texts(&|_| String::new()), false),
        ("parent_id", parents, true),
        ("split", texts(&split), false),
        ("name_tokens", Arc::new(names), true),
        ("name_length", Arc::new(UInt32Array::from(vec![1; usize::from(rows)])), false),
        ("text", Arc::clone(&tokens), true),
        ("text_length", Arc::clone(&lengths), false),
        ("code", tokens, true),
        ("code_length", lengths, false),
    ])
    .unwrap()
}

fn inputs(store: &Store) {
    inputs_of(store, &tokens);
}

fn inputs_of(store: &Store, tokens: &dyn Fn(bool) -> RecordBatch) {
    let special = ["<pad>", "<s>", "</s>"].map(str::to_owned);
    let all = special.into_iter().chain((3..VOCABULARY).map(|n| format!("t{n}")));
    let vocabulary: serde_json::Map<_, _> = all.enumerate().map(|(id, token)| (token, id.into())).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>" },
    });
    let json = json.to_string();
    for (name, source) in [("from", true), ("to", false)] {
        testing::publish(store, &format!("tokenize:{name}"), |attempt| {
            let mut writer = attempt.writer_with(&format!("tokens_{name}"), &[("token_bytes", "2".to_owned())])?;
            writer.write(tokens(source))?;
            attempt.finish(writer)?;
            attempt.add_file("tokenizers", &format!("{name}.json"), json.clone().into_bytes())
        })
        .unwrap();
    }
}

fn config(folder: &std::path::Path, source: &str, target: &str, rest: &str) -> Config {
    config_of(folder, (source, "from"), (target, "to"), rest)
}

/// Each side is a column and its tokenizer.
fn config_of(folder: &std::path::Path, source: (&str, &str), target: (&str, &str), rest: &str) -> Config {
    let side =
        |(column, tokenizer)| format!("{{ column = \"{column}\", tokenizer = \"{tokenizer}\", max_tokens = 8 }}");
    let text = format!("name = \"t\"\n[train.m]\nsource = {}\ntarget = {}\n{rest}\n", side(source), side(target));
    Config::parse(&text, &folder.join("c.toml"), &[]).unwrap()
}

fn losses(store: &Store, manifest: &Manifest) -> Vec<f64> {
    let batches = read_output(store, manifest, "training_steps", &[]).unwrap();
    let mut losses = Vec::new();
    for batch in &batches {
        let (splits, values) = (text_column(batch, "split").unwrap(), float_column(batch, "loss").unwrap());
        losses.extend((0..batch.num_rows()).filter(|&r| splits.value(r) == "validation").map(|r| values.value(r)));
    }
    losses
}

const GENERATOR: &str = "epochs = 6\nbatch_size = 8\nlearning_rate = 0.02\nmodel = { kind = \"attention_lstm\", embedding = 16, hidden = 16, dropout = 0.1 }";
const ENCODER: &str = "epochs = 6\nbatch_size = 16\nlearning_rate = 0.02\nmodel = { kind = \"nbow\", embedding = 16 }";

#[test]
fn models_learn_and_equal_runs_give_equal_weights() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    // Code to text is the same loop with the columns exchanged.
    for (name, source, target, rest) in [
        ("generator", "text", "code", GENERATOR),
        ("encoder", "text", "code", ENCODER),
        ("documenter", "code", "text", GENERATOR),
        (
            "plain",
            "text",
            "code",
            "epochs = 6\nbatch_size = 4\naccumulate = 2\nlearning_rate = 0.02\nteacher_forcing = { end = 0.7 }\nmodel = { kind = \"rnn\", embedding = 16, hidden = 32, dropout = 0.0 }\noptimizer = \"lazy_adamw\"\nloss = { kind = \"cross_entropy\", label_smoothing = 0.05, z_loss = 1e-4 }",
        ),
        (
            "weighted",
            "text",
            "code",
            "epochs = 6\nbatch_size = 4\nlearning_rate = 0.1\nmodel = { kind = \"lstm\", embedding = 16, hidden = 16, dropout = 0.0 }\noptimizer = \"adafactor\"\nschedule = { kind = \"linear\", warmup_steps = 3, end = 0.1 }\nloss = { kind = \"cross_entropy\", class_weights = \"effective_number\" }",
        ),
        (
            "attentive",
            "text",
            "code",
            "epochs = 6\nbatch_size = 4\nlearning_rate = 0.02\nmodel = { kind = \"transformer\", width = 16, heads = 2, encoder_layers = 1, decoder_layers = 1, feed_forward = 32 }\noptimizer = { kind = \"muon\", matrix_rate = 5.0 }\nschedule = \"cosine\"\ncheckpoint_steps = 1\nbatch_tokens = 48\naverage = { kind = \"epochs\", count = 2 }",
        ),
        (
            "both_ways",
            "text",
            "code",
            "epochs = 6\nbatch_size = 16\nlearning_rate = 0.5\nmodel = { kind = \"nbow\", embedding = 16 }\naverage = { kind = \"ema\", decay = 0.5 }\noptimizer = { kind = \"sgd\", momentum = 0.9 }\nloss = { kind = \"softmax\", symmetric = true, temperature = 0.1 }",
        ),
    ] {
        let config = config(folder.path(), source, target, rest);
        testing::on_each_store(&folder.path().join(name), |store| {
            inputs(store);
            let datasets = ["tokens_from", "tokens_to", "tokenizers"];
            let manifest = testing::run::<Train>(store, &config, Some("m"), &datasets).unwrap();
            let losses = losses(store, &manifest);
            assert_eq!(losses.len(), 6);
            assert!(losses[5] < 0.8 * losses[0], "{name}: {losses:?}");
            let names: Vec<&str> = manifest.files("models").map(codepair_runtime::Output::name).collect();
            let expected = ["config.json", "model.safetensors", "source_tokenizer.json", "target_tokenizer.json"];
            assert_eq!(names, expected.map(|name| format!("models/{name}")));
            assert_eq!(manifest.notes["training_pairs"], 36);
            assert!(manifest.notes["parameters"].as_u64().unwrap() > 100);
            manifest
        });
    }
}

/// What is trained another way is another training, however much of it is as it was by default.
#[test]
fn every_kind_is_a_fingerprint_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let model = |kind: &str| format!("model = {{ kind = \"{kind}\" }}");
    let mut seen = std::collections::BTreeSet::new();
    let mut all: Vec<String> = ["rnn", "lstm", "attention_lstm", "transformer", "paired", "nbow"].map(model).to_vec();
    let rest = ["adamw", "lazy_adamw", "adafactor", "sgd", "muon"].map(|kind| format!("optimizer = \"{kind}\""));
    // AdamW and the rate that stays are what is taken anyway.
    all.extend(rest.iter().skip(1).map(|rest| format!("{}\n{rest}", model("lstm"))));
    let schedules = ["linear", "cosine", "inverse_square_root", "warmup_stable_decay"];
    all.extend(schedules.map(|kind| format!("{}\nschedule = \"{kind}\"", model("lstm"))));
    all.extend(["ema", "epochs"].map(|kind| format!("{}\naverage = \"{kind}\"", model("lstm"))));
    all.push(format!("{}\nloss = \"cosine_hinge\"", model("nbow")));
    let overrides = |rest: &str| {
        let config = config(folder.path(), "text", "code", rest);
        codepair_runtime::describe::<Train>(&config).unwrap().steps[0].overrides.to_string()
    };
    for rest in &all {
        assert!(seen.insert(overrides(rest)), "{rest}");
    }
    // What is written down as it is by default changes nothing.
    for same in [
        "optimizer = \"adamw\"",
        "schedule = \"constant\"",
        "loss = \"cross_entropy\"",
        "loss = { kind = \"cross_entropy\", z_loss = 0.0 }",
    ] {
        assert!(!seen.insert(overrides(&format!("{}\n{same}", model("lstm")))), "{same}");
    }
}

/// A model begins with another's weights, and with no weights that do not fit.
#[test]
fn a_training_goes_on_from_another_s_weights() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::memory();
    inputs(&store);
    let datasets = ["tokens_from", "tokens_to", "tokenizers"];
    let run = |source: &str, target: &str, rest: &str| {
        testing::run::<Train>(&store, &config(folder.path(), source, target, rest), Some("m"), &datasets)
    };
    let first = run("text", "code", GENERATOR).unwrap();
    let least = losses(&store, &first).into_iter().fold(f64::INFINITY, f64::min);
    let still = GENERATOR.replace("epochs = 6", "epochs = 1").replace("0.02", "1e-12");
    let init = format!("init = \"m@{}\"\n", &first.fingerprint[..12]);
    let second = run("text", "code", &format!("{init}{still}")).unwrap();
    let loss = losses(&store, &second)[0];
    assert!((loss - least).abs() < 1e-6, "{loss} and {least}");
    let fresh = losses(&store, &run("text", "code", &still).unwrap())[0];
    assert!(fresh > 1.2 * least, "{fresh}");
    let refused = |rest: &str| format!("{:#}", run("text", "code", rest).unwrap_err());
    let wider = refused(&format!("{init}{}", still.replace("hidden = 16", "hidden = 12")));
    assert!(wider.contains("train.m.init") && wider.contains("another model: model.hidden = 16"), "{wider}");
    assert!(refused(&format!("init = \"m\"\n{still}")).contains("as NAME@FINGERPRINT"));
    assert!(refused(&format!("init = \"m@000000000000\"\n{still}")).contains("m@000000000000"));
}

/// What a config is refused with before anything is read.
fn refused_early(config: &Config) -> String {
    format!("{:#}", codepair_runtime::describe::<Train>(config).unwrap_err())
}

/// A document is made of several fields, never of its own query but where a rule says so, and sources are weighed.
#[test]
fn documents_have_fields_and_sources_weights() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::memory();
    inputs(&store);
    let of = |target: &str, rest: &str| {
        let text = format!(
            "name = \"t\"\n[train.m]\nsource = {{ column = \"text\", tokenizer = \"from\", max_tokens = 8 }}\ntarget = {{ {target}, tokenizer = \"to\", max_tokens = 8 }}\n{rest}\n"
        );
        Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap()
    };
    let run = |target: &str, rest: &str| {
        testing::run::<Train>(&store, &of(target, rest), Some("m"), &["tokens_from", "tokens_to", "tokenizers"])
    };
    let best = |manifest: &Manifest| losses(&store, manifest).into_iter().fold(f64::INFINITY, f64::min);
    let plain = run("column = \"code\"", ENCODER).unwrap();
    // The query itself is in no document of a validation, however often in those of the training.
    let all = "fields = [\"name\", \"text\", \"code\"], field_dropout = { text = 0.9 }";
    let main = refused_early(&of("fields = [\"code\", \"name\"], field_dropout = { code = 0.5 }", ENCODER));
    assert!(main.contains("field_dropout.code: every document has code"), "{main}");
    let whole = run(all, ENCODER).unwrap();
    assert_ne!(losses(&store, &whole), losses(&store, &plain));
    assert!(best(&whole) > 0.3 * best(&plain), "{} and {}", best(&whole), best(&plain));
    let card: serde_json::Value =
        serde_json::from_slice(&whole.read_named(&store, "models/config.json").unwrap()).unwrap();
    assert_eq!(card["target"]["fields"], serde_json::json!(["name", "text", "code"]));
    assert_eq!((&card["target"]["column"], &card["source"]["fields"]), (&"code".into(), &serde_json::Value::Null));

    let weighted = run("column = \"code\"", &format!("source_weights = {{ third = 3 }}\n{ENCODER}")).unwrap();
    assert_ne!(losses(&store, &weighted), losses(&store, &plain));
    // 12 of the 36 pairs are of the source that comes thrice: 60 rows in batches of 16 are 4 steps an epoch, and 36 are 3.
    let steps = |manifest: &Manifest| {
        let batches = read_output(&store, manifest, "training_steps", &["step"]).unwrap();
        batches.iter().flat_map(|batch| codepair_runtime::integer_column(batch, "step").unwrap()).max().unwrap()
    };
    assert_eq!((steps(&weighted), steps(&plain)), (24, 18));
    let refused = |target: &str, rest: &str| format!("{:#}", run(target, rest).unwrap_err());
    let unknown = refused("column = \"code\"", &format!("source_weights = {{ thrid = 3 }}\n{ENCODER}"));
    assert!(unknown.contains("train.m.source_weights.thrid") && unknown.contains("third"), "{unknown}");
    for (target, rest, words) in [
        ("fields = [\"text\", \"code\"]", ENCODER, "each document would hold its own query"),
        ("fields = [\"name\"]", ENCODER, "fields has to hold text or code"),
        ("fields = [\"code\", \"code\"]", ENCODER, "fields holds code twice"),
        ("fields = [\"code\"], field_dropout = { name = 0.5 }", ENCODER, "field_dropout.name is none of the fields"),
        ("fields = [\"name\", \"code\"], field_dropout = { name = 1.5 }", ENCODER, "must be between 0 and 1"),
        ("fields = [\"name\", \"code\"]", GENERATOR, "a generator writes one column"),
        ("max_tokens = 8", ENCODER, "column is missing"),
    ] {
        let target = target.replace("max_tokens = 8", "");
        let target = if target.is_empty() { "field_dropout = {}".to_owned() } else { target };
        let said = refused(&target, rest);
        assert!(said.contains(words), "{target}: {said}");
    }
}

/// The best epoch is the one that a metric says, on rows of the validation split.
#[test]
fn the_best_epoch_is_chosen_by_a_metric() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::memory();
    inputs(&store);
    let run = |rest: &str| {
        let config = config(folder.path(), "text", "code", rest);
        testing::run::<Train>(&store, &config, Some("m"), &["tokens_from", "tokens_to", "tokenizers"])
    };
    for (rest, metric, least) in [(GENERATOR, "token_accuracy", 0.0), (ENCODER, "mrr", 1.0 / 12.0)] {
        let manifest = run(&format!("best_by = {{ metric = \"{metric}\", rows = 12 }}\n{rest}")).unwrap();
        let batches = read_output(&store, &manifest, "training_steps", &["split", "score", "epoch"]).unwrap();
        let mut scores = Vec::new();
        for batch in &batches {
            let (splits, values) = (text_column(batch, "split").unwrap(), float_column(batch, "score").unwrap());
            for row in 0..batch.num_rows() {
                assert_eq!(values.is_valid(row), splits.value(row) == "validation");
                scores.extend(values.is_valid(row).then(|| values.value(row)));
            }
        }
        assert_eq!(scores.len(), 6);
        assert!(scores.iter().all(|score| *score >= least) && scores[5] > scores[0], "{metric}: {scores:?}");
        // The first of those that are the best.
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let epoch = scores.iter().position(|score| *score == best).unwrap() as u64 + 1;
        assert_eq!(manifest.notes["best_epoch"], epoch, "{scores:?}");
    }
    let refused = |rest: String| format!("{:#}", run(&rest).unwrap_err());
    let other = refused(format!("best_by = \"mrr\"\n{GENERATOR}"));
    assert!(other.contains("train.m.best_by.metric = \"mrr\" is none of bleu, exact_match"), "{other}");
    assert!(refused(format!("best_by = {{ metric = \"mrr\", rows = 1 }}\n{ENCODER}")).contains("at least 2"));
}

/// Files that transformers made say the model's sizes, count by content, and are trained on.
#[test]
fn a_training_begins_with_pretrained_files() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipeline/model/src/pretrained/golden");
    let copy = |name: &str| {
        let copy = folder.path().join(name);
        std::fs::create_dir_all(&copy).unwrap();
        for file in std::fs::read_dir(golden.join(name)).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
    };
    ["whole", "sharded", "gated"].iter().for_each(|name| copy(name));
    let store = Store::memory();
    inputs(&store);
    let datasets = ["tokens_from", "tokens_to", "tokenizers"];
    let rest =
        |model: &str, init: &str| format!("epochs = 6\nbatch_size = 8\nlearning_rate = 0.02\n{model}\ninit = {init}");
    // A T5 has one table of embeddings.
    let of = |model: &str, init: &str| {
        let target = if model.contains("t5") { "from" } else { "to" };
        config_of(folder.path(), ("text", "from"), ("code", target), &rest(model, init))
    };
    let described = |model: &str, init: &str| codepair_runtime::describe::<Train>(&of(model, init));
    let refused = |model: &str, init: &str| format!("{:#}", described(model, init).unwrap_err());

    let manifest =
        testing::run::<Train>(&store, &of("model = \"t5\"", "\"whole\""), Some("m"), &["tokens_from", "tokenizers"])
            .unwrap();
    let found = losses(&store, &manifest);
    assert!(found[5] < 0.8 * found[0], "{found:?}");
    let card: serde_json::Value =
        serde_json::from_slice(&manifest.read_named(&store, "models/config.json").unwrap()).unwrap();
    assert_eq!((&card["model"]["width"], &card["model"]["head_width"]), (&8.into(), &3.into()));
    assert_eq!((&card["vocabularies"]["source"], &card["special"]["end"]), (&40.into(), &1.into()));
    let halves = "{ encoder = \"gated\", decoder = \"sharded\" }";
    let paired = testing::run::<Train>(&store, &of("model = \"paired\"", halves), Some("m"), &datasets).unwrap();
    let found = losses(&store, &paired);
    assert!(found[5] < 0.8 * found[0], "{found:?}");

    // What began with files is begun with as any other is: with their vocabulary, and what begins and ends a target there.
    let init = format!("\"m@{}\"", &manifest.fingerprint[..12]);
    let model = "model = { kind = \"t5\", width = 8, heads = 2, head_width = 3, feed_forward = 10, encoder_layers = 2, decoder_layers = 1, buckets = 8, farthest = 10 }";
    let on = testing::run::<Train>(&store, &of(model, &init), Some("m"), &["tokens_from", "tokenizers"]).unwrap();
    let later: serde_json::Value =
        serde_json::from_slice(&on.read_named(&store, "models/config.json").unwrap()).unwrap();
    assert_eq!((&later["special"], &later["vocabularies"]), (&card["special"], &card["vocabularies"]));
    assert!(losses(&store, &on)[0] < found[0]);

    // The place of files does not count, and what is in them does; so does what the training changes of them.
    let step = |model: &str, init: &str| {
        let step = described(model, init).unwrap().steps.remove(0);
        (step.overrides.to_string(), step.sources)
    };
    let t5 = step("model = \"t5\"", "\"whole\"");
    std::fs::rename(folder.path().join("whole"), folder.path().join("moved")).unwrap();
    assert_eq!(step("model = \"t5\"", "\"moved\""), t5);
    assert_ne!(step("model = { kind = \"t5\", dropout = 0.3 }", "\"moved\"").0, t5.0);
    assert_ne!(step("model = \"t5\"", "\"sharded\"").1, t5.1);
    let weights = folder.path().join("moved/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_ne!(step("model = \"t5\"", "\"moved\"").1, t5.1);

    // What is written is meant, a default as well.
    for width in [64, 512] {
        let wide = refused(&format!("model = {{ kind = \"t5\", width = {width} }}"), "\"moved\"");
        assert!(wide.contains(&format!("train.m.model.width = {width}")) && wide.contains("say 8"), "{wide}");
    }
    let dropout = |text: &str| step(&format!("model = {{ kind = \"t5\"{text} }}"), "\"dry\"").0;
    std::fs::rename(folder.path().join("moved"), folder.path().join("dry")).unwrap();
    let path = folder.path().join("dry/config.json");
    let dry = std::fs::read_to_string(&path).unwrap().replace("\"dropout_rate\": 0.1", "\"dropout_rate\": 0.0");
    std::fs::write(&path, &dry).unwrap();
    assert_eq!(dropout(""), dropout(", dropout = 0.0"));
    assert_ne!(dropout(""), dropout(", dropout = 0.1"));
    std::fs::write(&path, dry.replace("\"eos_token_id\": 1", "\"eos_token_id\": 99")).unwrap();
    assert!(refused("model = \"t5\"", "\"dry\"").contains("eos_token_id = 99 is none of its 40 tokens"));
    // What is broken is no missing input, in whose place an older state could stand.
    std::fs::write(&path, dry.replace("\"relu\"", "\"gated-silu\"")).unwrap();
    let broken = described("model = \"t5\"", "\"dry\"").unwrap_err();
    assert_eq!(exit_status(&broken), ExitStatus::WrongConfig, "{broken:#}");
    assert_eq!(exit_status(&described("model = \"t5\"", "\"gone\"").unwrap_err()), ExitStatus::MissingInput);
    std::fs::write(&path, &dry).unwrap();
    std::fs::rename(folder.path().join("dry"), folder.path().join("moved")).unwrap();
    let inner = refused("model = { kind = \"paired\", decoder = { heads = 3 } }", halves);
    assert!(inner.contains("train.m.model.decoder.heads = 3"), "{inner}");
    let kind = refused("model = \"lstm\"", "\"moved\"");
    assert!(kind.contains("kind = \"lstm\"") && kind.contains("\"t5\""), "{kind}");
    assert!(refused("model = \"t5\"", "\"nowhere\"").contains("nowhere"));
    let one = refused("model = \"paired\"", "{ encoder = \"gated\", decoder = \"nowhere\" }");
    assert!(one.contains("nowhere/config.json"), "{one}");
}

#[test]
fn training_stops_early() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    // So small a rate that the loss does not move, and so high a patience bound that only the best epoch counts.
    let config = config(
        folder.path(),
        "text",
        "code",
        &ENCODER.replace("0.02", "1e-12\npatience = 2").replace("epochs = 6", "epochs = 9"),
    );
    let store = Store::memory();
    inputs(&store);
    let manifest =
        testing::run::<Train>(&store, &config, Some("m"), &["tokens_from", "tokens_to", "tokenizers"]).unwrap();
    let count = losses(&store, &manifest).len() as u64;
    assert!(count < 9, "{count}");
    assert_eq!(manifest.notes["best_epoch"].as_u64().unwrap() + 2, count);
}

/// As [`tokens`], with `count` negatives for each training pair behind them: sources of the pair, targets of others.
fn with_negatives(source: bool, count: u16) -> RecordBatch {
    let plain = tokens(source);
    let (rows, parents) = (plain.num_rows() as u16, plain.num_rows() as u16 - 12);
    let training: Vec<u16> = (0..rows).filter(|row| !row.is_multiple_of(4)).take(usize::from(parents)).collect();
    let made: Vec<(u16, u16)> = training.iter().flat_map(|&row| (0..count).map(move |n| (row, n))).collect();
    let bytes = |&(row, n): &(u16, u16)| -> Vec<u8> {
        let token = |shift: u16| 3 + (row + if source { 0 } else { n + 1 } + shift) % 9;
        [token(0), token(1), token(2)].into_iter().flat_map(u16::to_le_bytes).collect()
    };
    let bytes: Vec<Vec<u8>> = made.iter().map(bytes).collect();
    let tokens: ArrayRef = Arc::new(bytes.iter().map(|b| Some(b.as_slice())).collect::<BinaryArray>());
    let texts = |value: &dyn Fn(usize, u16) -> String| -> ArrayRef {
        Arc::new(made.iter().enumerate().map(|(at, (row, _))| Some(value(at, *row))).collect::<StringArray>())
    };
    let lengths: ArrayRef = Arc::new(UInt32Array::from(vec![3; made.len()]));
    let ordinals: ArrayRef =
        Arc::new(UInt64Array::from_iter_values((0..made.len()).map(|at| u64::from(rows) + at as u64)));
    let negatives = RecordBatch::try_new(
        plain.schema(),
        vec![
            texts(&|at, _| format!("n{at}")),
            ordinals,
            texts(&|_, _| "mined".to_owned()),
            texts(&|_, _| "negative".to_owned()),
            texts(&|_, _| "mined".to_owned()),
            texts(&|_, row| row.to_string()),
            texts(&|_, _| "train".to_owned()),
            Arc::new((0..made.len()).map(|_| Some([])).collect::<BinaryArray>()),
            Arc::new(UInt32Array::from(vec![0; made.len()])),
            Arc::clone(&tokens),
            Arc::clone(&lengths),
            tokens,
            lengths,
        ],
    )
    .unwrap();
    arrow::compute::concat_batches(&plain.schema(), [&plain, &negatives]).unwrap()
}

/// All of a pair's negatives count: each one more is another model, up to the cap.
#[test]
fn every_negative_counts() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let losses = |count: u16, more: &str| {
        let store = Store::memory();
        inputs_of(&store, &|source| with_negatives(source, count));
        let encoder = ENCODER.replace("epochs = 6", &format!("epochs = 2\nnegatives = [\"mined\"]{more}"));
        let config = config(folder.path(), "text", "code", &encoder);
        let manifest =
            testing::run::<Train>(&store, &config, Some("m"), &["tokens_from", "tokens_to", "tokenizers"]).unwrap();
        manifest.digest
    };
    let digests = [0, 1, 2, 4].map(|count| losses(count, ""));
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at}: {digests:?}");
    }
    assert_eq!(losses(4, "\nnegatives_per_pair = 2"), digests[2]);
    assert_eq!(losses(2, "\nnegatives_per_pair = 9"), digests[2]);
}

/// What is trained on and chosen by: positives where they are wanted, targets that fit, and as many as asked for.
#[test]
fn rows_are_for_training_or_validation_or_neither() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    // Kinds and splits with how many rows there are of each, and how many tokens their targets have.
    const ROWS: [(&str, &str, u16, u16); 7] = [
        ("original", "train", 20, 3),
        ("positive", "train", 5, 3),
        ("original", "train", 4, 9),
        ("negative", "train", 3, 3),
        ("original", "validation", 6, 3),
        ("original", "validation", 2, 9),
        ("original", "test", 7, 3),
    ];
    let table = |source: bool| -> RecordBatch {
        let rows: Vec<(&str, &str, u16)> = ROWS
            .iter()
            .flat_map(|&(kind, split, rows, length)| std::iter::repeat_n((kind, split, length), usize::from(rows)))
            .collect();
        let texts = |value: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new((0..rows.len()).map(|row| Some(value(row))).collect::<StringArray>())
        };
        let bytes =
            |length: u16| (0..if source { 3 } else { length }).flat_map(|at| (3 + at % 9).to_le_bytes()).collect();
        let bytes: Vec<Vec<u8>> = rows.iter().map(|row| bytes(row.2)).collect();
        let plain = tokens(source);
        let tokens: ArrayRef = Arc::new(bytes.iter().map(|b| Some(b.as_slice())).collect::<BinaryArray>());
        let lengths: ArrayRef = Arc::new(UInt32Array::from(vec![3; rows.len()]));
        let columns = vec![
            texts(&|row| row.to_string()),
            Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
            texts(&|_| "source".to_owned()),
            texts(&|row| rows[row].0.to_owned()),
            texts(&|_| "mined".to_owned()),
            Arc::new(StringArray::from(vec![Some("0"); rows.len()])),
            texts(&|row| rows[row].1.to_owned()),
            Arc::new((0..rows.len()).map(|_| Some([])).collect::<BinaryArray>()),
            Arc::new(UInt32Array::from(vec![0; rows.len()])),
            Arc::clone(&tokens),
            Arc::clone(&lengths),
            tokens,
            lengths,
        ];
        RecordBatch::try_new(plain.schema(), columns).unwrap()
    };
    let store = Store::memory();
    inputs_of(&store, &table);
    let counts = |rest: &str| {
        let config = config(folder.path(), "text", "code", &rest.replace("epochs = 6", "epochs = 1"));
        let datasets = ["tokens_from", "tokens_to", "tokenizers"];
        let manifest = testing::run::<Train>(&store, &config, Some("m"), &datasets).unwrap();
        ["training_pairs", "validation_pairs", "pairs_too_long"].map(|note| manifest.notes[note].as_u64().unwrap())
    };
    assert_eq!(counts(GENERATOR), [25, 6, 4]);
    assert_eq!(counts(&format!("synthetic_positives = false\n{GENERATOR}")), [20, 6, 4]);
    // A search model's targets are cut.
    assert_eq!(counts(ENCODER), [29, 8, 0]);
    assert_eq!(counts(&format!("synthetic_positives = false\nmax_examples = 9\n{ENCODER}")), [9, 8, 0]);
}

#[test]
fn wrong_models_are_config_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (rest, words) in [
        ("model = { kind = \"nbow\", shared = true }", "source.tokenizer and target.tokenizer must be the same"),
        ("epochs = 0\nmodel = { kind = \"nbow\" }", "must be at least 1"),
        ("negatives = [\"nearest\"]\nmodel = { kind = \"attention_lstm\" }", "are for search models"),
        ("model = { kind = \"nbwo\" }", "did you mean `nbow`?"),
        ("model = { kind = \"nbow\", embeding = 3 }", "did you mean `embedding`?"),
        ("model = { kind = \"lstm\", copy = true }", "must be the same, for model.copy"),
        ("model = { kind = \"transformer\", heads = 3 }", "train.m.model.width = 256 must be a multiple of heads = 3"),
        ("model = { kind = \"rnn\", dropout = 1.0 }", "train.m.model.dropout = 1 must be"),
        (
            "model = { kind = \"lstm\" }\nloss = \"softmax\"",
            "train.m.loss = \"softmax\" is not for a model of the kind lstm",
        ),
        (
            "model = { kind = \"nbow\" }\nloss = { kind = \"softmax\", temperature = 0 }",
            "loss.temperature = 0 must be above 0",
        ),
        ("model = { kind = \"nbow\" }\nteacher_forcing = { end = 0.5 }", "teacher_forcing is for generators"),
        ("model = { kind = \"lstm\" }\naverage = { kind = \"ema\", decay = 1.0 }", "average.decay = 1 must be"),
        ("model = { kind = \"lstm\" }\nbatch_tokens = 0", "must be at least 1"),
        ("model = { kind = \"lstm\" }\npatience = 0", "must be at least 1"),
        ("model = { kind = \"lstm\" }\nlearning_rate = nan", "must be numbers above 0"),
        ("model = { kind = \"nbow\" }\nbatch_size = 1", "nothing to tell its document from"),
        ("model = { kind = \"nbow\", loss = \"softmax\" }\nloss = \"softmax\"", "give one of them"),
        ("model = { kind = \"lstm\" }\noptimizer = \"adamm\"", "did you mean `adamw`?"),
        ("model = { kind = \"lstm\" }\noptimizer = { kind = \"adamw\", beta1 = 1.0 }", "optimizer.beta1 = 1 must be"),
        ("model = { kind = \"lstm\" }\nschedule = { kind = \"cosine\", warmup = 3 }", "warmup_steps"),
        ("model = { kind = \"lstm\" }\nschedule = { kind = \"linear\", end = 2.0 }", "schedule.end = 2 must be"),
    ] {
        let error = codepair_runtime::describe::<Train>(&config(folder.path(), "text", "code", rest)).unwrap_err();
        assert_eq!(codepair_runtime::exit_status(&error), codepair_runtime::ExitStatus::WrongConfig);
        assert!(error.to_string().contains(words), "{error}");
    }
}
