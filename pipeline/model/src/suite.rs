//! What holds for every model in the lists, whatever its options: each kind is tried small, and with each of its switches turned.

use std::sync::Mutex;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{AdamConfig, GradientsParams, Optimizer as _};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use codepair_tokenizer::Special;
use serde_json::{Value, json};

use crate::generators::{Generate, Step};
use crate::*;

const VOCABULARY: usize = 13;
/// Lengths differ, so that something is padded.
const SOURCES: [&[u32]; 3] = [&[3, 4, 5, 6, 7], &[8, 9], &[10, 11, 12, 4]];
const TARGETS: [&[u32]; 3] = [&[5, 6, 7], &[9, 10, 11, 12, 3, 4], &[8]];

/// Sizes that a kind may have, and what they are here.
const SMALL: [(&str, usize); 12] = [
    ("embedding", 6),
    ("hidden", 5),
    ("width", 8),
    ("heads", 2),
    ("encoder_layers", 2),
    ("decoder_layers", 2),
    ("feed_forward", 10),
    ("longest", 9),
    ("head_width", 3),
    ("layers", 2),
    ("buckets", 8),
    ("farthest", 6),
];

/// Choices that are no switches, beside their defaults.
fn other_choices(key: &str) -> Vec<Value> {
    match key {
        "positions" => vec![json!("learned")],
        "activation" => vec![json!("gelu")],
        _ => Vec::new(),
    }
}

/// Sizes as they are here, in tables of tables too, and no dropout.
fn shrunk(of: &mut Value) {
    for (key, value) in of.as_object_mut().into_iter().flatten() {
        match SMALL.iter().find(|(known, _)| known == key) {
            Some((_, size)) => *value = json!(size),
            None if key == "dropout" => *value = json!(0.0),
            None => shrunk(value),
        }
    }
}

/// The same with one of its switches turned, in tables of tables too. One that is off by default may be left out of the text.
fn switched(of: &Value) -> Vec<Value> {
    let mut keys: Vec<String> = of.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    keys.push("copy".to_owned());
    let others = |key: &String| match of.get(key) {
        Some(Value::Bool(is)) => vec![json!(!is)],
        Some(table @ Value::Object(_)) => switched(table),
        Some(_) => other_choices(key),
        None => vec![json!(true)],
    };
    let with = |key: &String, value: Value| {
        let mut other = of.clone();
        other[key] = value;
        other
    };
    keys.iter().flat_map(|key| others(key).into_iter().map(move |value| with(key, value))).collect()
}

/// Every kind, small and without dropout, and the same with each of its switches turned.
fn every_config() -> Vec<ModelConfig> {
    let mut found = Vec::new();
    for config in ModelConfig::all() {
        let mut small = serde_json::to_value(&config).unwrap();
        shrunk(&mut small);
        let all = [vec![small.clone()], switched(&small)].concat();
        // Not every kind can copy.
        found.extend(all.into_iter().filter_map(|value| serde_json::from_value::<ModelConfig>(value).ok()));
    }
    assert!(found.iter().all(|config| config.check().is_ok()));
    found
}

/// burn has one source of random numbers for all threads.
static SEEDING: Mutex<()> = Mutex::new(());

fn fresh<B: Backend>(config: &ModelConfig, seed: u64) -> Model<B> {
    let device = B::Device::default();
    let _alone = SEEDING.lock().unwrap();
    B::seed(&device, seed);
    let model = config.init(Vocabularies { source: VOCABULARY, target: VOCABULARY }, &device);
    // burn draws a weight when it is first touched.
    save(&model).unwrap();
    model
}

fn pairs(framed: bool) -> Vec<Pair> {
    let pair = |(source, target): (&&[u32], &&[u32])| Pair { source: source.to_vec(), target: target.to_vec() };
    let frame = |pair: Pair| if framed { pair.framed(Special::default()) } else { pair };
    SOURCES.iter().zip(&TARGETS).map(pair).map(frame).collect()
}

fn batch<B: Backend>(config: &ModelConfig) -> Batch<B> {
    Batch::new(&pairs(config.task() == Task::Generation), &[], &B::Device::default())
}

fn criterion<B: Backend>(config: &ModelConfig) -> Criterion<B> {
    Criterion { loss: Loss::default_of(config.task()), class_weights: None }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn assert_near(one: &[f64], two: &[f64], tolerance: f64, of: impl std::fmt::Debug) {
    assert_eq!(one.len(), two.len());
    let furthest = one.iter().zip(two).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest < tolerance, "{of:?}: {furthest}");
}

/// What a model makes of pairs, row by row: its logits, or its vectors of both sides.
fn outputs(model: &Model<Cpu>, pairs: &[Pair]) -> Vec<Vec<f64>> {
    let device = CpuDevice::default();
    match model {
        Model::Generator(model) => {
            let batch = Batch::new(pairs, &[], &device);
            let logits = model.logits(&batch);
            let [_, width, vocabulary] = logits.dims();
            let all = values(logits);
            let row = |(at, pair): (usize, &Pair)| {
                all[at * width * vocabulary..][..(pair.target.len() - 1) * vocabulary].to_vec()
            };
            pairs.iter().enumerate().map(row).collect()
        }
        Model::Encoder(model) => {
            let of = |role, rows: Vec<&[u32]>| {
                let vectors = model.vectors(role, &Tokens::new(&rows, &device));
                let width = vectors.dims()[1];
                values(vectors).chunks(width).map(<[f64]>::to_vec).collect::<Vec<_>>()
            };
            let queries = of(Role::Query, pairs.iter().map(|pair| pair.source.as_slice()).collect());
            let documents = of(Role::Document, pairs.iter().map(|pair| pair.target.as_slice()).collect());
            queries.into_iter().zip(documents).map(|(query, document)| [query, document].concat()).collect()
        }
    }
}

fn stepped<G: Generate<Cpu>>(model: &G, pairs: &[Pair]) -> Vec<Vec<f64>> {
    let device = CpuDevice::default();
    let batch = Batch::<Cpu>::new(pairs, &[], &device);
    let mut state = model.begin(&batch.source);
    let mut rows = vec![Vec::new(); pairs.len()];
    for at in 0..batch.target.width() - 1 {
        let last: Tensor<Cpu, 1, Int> = batch.target.ids.clone().narrow(1, at, 1).squeeze_dim(1);
        let Step { logits, attention, state: next } = model.step(last, state);
        state = next;
        let attention = attention.map(values);
        for (row, logits) in values(logits).chunks(VOCABULARY).enumerate() {
            if at + 1 < pairs[row].target.len() {
                rows[row].extend(logits);
            }
            if let Some(attention) = &attention {
                let own = &attention[row * batch.source.width()..(row + 1) * batch.source.width()];
                let (seen, padding) = own.split_at(pairs[row].source.len());
                assert!((seen.iter().sum::<f64>() - 1.0).abs() < 1e-5 && padding.iter().all(|weight| *weight == 0.0));
            }
        }
    }
    rows
}

#[test]
fn step_equals_logits() {
    for config in every_config() {
        let model = fresh::<Cpu>(&config, 1);
        let Model::Generator(generator) = &model else { continue };
        let stepped = each_generator!(generator, model => stepped(model, &pairs(true)));
        assert_near(&stepped.concat(), &outputs(&model, &pairs(true)).concat(), 1e-5, &config);
    }
}

#[test]
fn padding_and_order_change_nothing() {
    for config in every_config() {
        let model = fresh::<Cpu>(&config, 1);
        let pairs = pairs(config.task() == Task::Generation);
        let together = outputs(&model, &pairs);
        let reversed: Vec<Pair> = pairs.iter().rev().cloned().collect();
        let mut back = outputs(&model, &reversed);
        back.reverse();
        assert_near(&together.concat(), &back.concat(), 1e-5, &config);
        for (pair, row) in pairs.iter().zip(&together) {
            assert_near(&outputs(&model, std::slice::from_ref(pair)).concat(), row, 1e-5, &config);
        }
        // Not because it makes the same of everything.
        let furthest = together[0].iter().zip(&together[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(furthest > 1e-3, "{config:?}");
    }
}

/// A model that was trained on the few pairs that there are, and its first and last loss.
fn learned(config: &ModelConfig) -> (Model<Cpu>, f64, f64) {
    let mut model = fresh::<TrainCpu>(config, 4);
    let mut adam = AdamConfig::new().init();
    let (batch, criterion) = (batch(config), criterion(config));
    let mut losses = Vec::new();
    for _ in 0..400 {
        let loss = model.loss(&batch, &criterion);
        losses.push(values(loss.clone())[0]);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adam.step(1e-2, model, gradients);
    }
    (model.valid(), losses[0], losses[losses.len() - 1])
}

#[test]
fn it_can_be_trained_and_writes_what_it_learned() {
    let sources: Vec<Vec<u32>> = SOURCES.iter().map(|source| source.to_vec()).collect();
    let decoding = Decoding { special: Special::default(), length: 12 };
    let device = CpuDevice::default();
    for config in every_config() {
        let (model, first, last) = learned(&config);
        assert!(last < 0.2 * first, "{config:?}: {first} and {last}");
        let Model::Generator(model) = &model else { continue };
        let greedy = model.greedy(&sources, decoding, &device);
        assert_eq!(greedy.iter().map(|one| one.tokens.as_slice()).collect::<Vec<_>>(), TARGETS, "{config:?}");
        let right = model.teacher_forced(&pairs(true), &device);
        assert_eq!(right, TARGETS.map(|target| (target.len() as u64 + 1, target.len() as u64 + 1)), "{config:?}");
        // A beam of width one is greedy, and every source is searched by itself.
        for (width, as_greedy) in [(1, true), (3, false)] {
            let together = model.beam(&sources, width, decoding, &device);
            for (at, beam) in together.iter().enumerate() {
                let alone = &model.beam(&sources[at..=at], width, decoding, &device)[0];
                assert_eq!((&alone.tokens, alone.tokens.len()), (&beam.tokens, beam.tokens.len()), "{config:?}");
                assert!((alone.log_probability - beam.log_probability).abs() < 1e-4, "{config:?}");
                assert!(!as_greedy || beam.tokens == greedy[at].tokens, "{config:?}");
                assert!(!as_greedy || (beam.log_probability - greedy[at].log_probability).abs() < 1e-4, "{config:?}");
            }
        }
        // What has no end is cut.
        let cut = Decoding { length: 2, ..decoding };
        assert!(model.greedy(&sources, cut, &device).iter().all(|one| one.tokens.len() <= 2));
        assert!(model.beam(&sources, 2, cut, &device).iter().all(|one| one.tokens.len() <= 2));
    }
}

#[test]
fn what_was_saved_is_loaded() {
    for config in every_config() {
        let model = fresh::<Cpu>(&config, 1);
        let bytes = save(&model).unwrap();
        let pairs = pairs(config.task() == Task::Generation);
        let mut other = fresh::<Cpu>(&config, 2);
        assert!(outputs(&other, &pairs) != outputs(&model, &pairs), "two seeds differ: {config:?}");
        load(&mut other, bytes.clone()).unwrap();
        assert!(outputs(&other, &pairs) == outputs(&model, &pairs), "{config:?}");
        assert!(save(&fresh::<Cpu>(&config, 1)).unwrap() == bytes, "one seed repeats: {config:?}");
        assert!(save(&fresh::<TrainCpu>(&config, 1).valid()).unwrap() == bytes, "with gradients too: {config:?}");
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    for config in ModelConfig::all() {
        let small = every_config().into_iter().find(|small| small.default_of_kind() == config).unwrap();
        let model = fresh::<Cpu>(&small, 1);
        let bytes = save(&model).unwrap();
        let names: Vec<String> = named(&model).into_values().map(|named| named.name).collect();
        let name = &names[0];
        let refused = |bytes: Vec<u8>| format!("{:#}", load(&mut fresh::<Cpu>(&small, 2), bytes).unwrap_err());
        let mut renamed = bytes.clone();
        let at = renamed.windows(name.len() + 2).position(|all| all == format!("\"{name}\"").as_bytes()).unwrap();
        renamed[at + 1] = b'Z';
        assert!(refused(renamed).contains(name.as_str()), "{name}");
        assert!(!refused(bytes[..bytes.len() / 2].to_vec()).is_empty());
        let Ok(other) = serde_json::to_value(&small) else { continue };
        let mut wider = other.clone();
        let places = ["/embedding", "/width", "/encoder/width"];
        let place = places.into_iter().find(|place| other.pointer(place).is_some()).unwrap();
        *wider.pointer_mut(place).unwrap() = json!(16);
        let wider = fresh::<Cpu>(&serde_json::from_value(wider).unwrap(), 1);
        let said = refused(save(&wider).unwrap());
        assert!(names.iter().any(|name| said.contains(name.as_str())), "{said}");
    }
}

/// Adds to one parameter, by its place.
struct Nudge {
    at: usize,
    by: Vec<f32>,
    seen: usize,
}

impl<B: Backend> ModuleMapper<B> for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        self.seen += 1;
        if self.seen - 1 != self.at {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let by = Tensor::from_data(TensorData::new(self.by.clone(), tensor.shape()), &tensor.device());
        Param::from_mapped_value(id, tensor + by, mapper)
    }
}

/// The gradients of all parameters, in order.
struct Read<'a> {
    gradients: &'a GradientsParams,
    found: Vec<Option<Vec<f64>>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Read<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found.push(self.gradients.get::<B::InnerBackend, D>(param.id).map(values));
    }
}

/// Along its own gradient each parameter changes the loss as fast as the gradient is long.
#[test]
fn gradients_agree_with_finite_differences() {
    /// A ReLU bends the loss within a long step, and rounding counts in a short one: one of them has to agree.
    const STEPS: [f64; 3] = [1e-2, 1e-3, 3e-4];
    for config in every_config() {
        let model = fresh::<TrainCpu>(&config, 3);
        let loss = model.loss(&batch(&config), &criterion(&config));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let mut read = Read { gradients: &gradients, found: Vec::new() };
        model.visit(&mut read);
        let plain = model.valid();
        let mut checked = 0;
        for (at, gradient) in read.found.iter().enumerate() {
            let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{config:?}: parameter {at} has no gradient"));
            let length = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
            let moved = |step: f64| {
                let by = gradient.iter().map(|x| (step * x / length.max(1e-12)) as f32).collect();
                let model = plain.clone().map(&mut Nudge { at, by, seen: 0 });
                values(model.loss(&batch(&config), &criterion(&config)))[0]
            };
            let slopes = STEPS.map(|step| (moved(step) - moved(-step)) / (2.0 * step));
            let agrees = |slope: &f64| (slope - length).abs() < 0.02 * length + 2e-4;
            assert!(slopes.iter().any(agrees), "{config:?}, {at}: {slopes:?} and {length}");
            checked += usize::from(length > 2e-3);
        }
        assert!(checked * 2 > read.found.len(), "{config:?}: most gradients are nothing");
    }
}
