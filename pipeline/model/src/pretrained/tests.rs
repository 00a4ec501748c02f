//! Held to what transformers makes of the same folders; `bench/models/t5.py` writes both.

use std::fs;

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::{Batch, Cpu, CpuDevice, Decoding, Generator, Pair};

#[derive(Deserialize)]
struct Golden {
    sources: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    longest: usize,
    #[serde(flatten)]
    folders: BTreeMap<String, Answers>,
}

#[derive(Deserialize)]
struct Answers {
    logits: Vec<Vec<f64>>,
    greedy: Vec<Vec<u32>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/golden.json")).unwrap()
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pretrained/golden").join(name)
}

fn loaded(pretrained: &Pretrained) -> Result<Model<Cpu>> {
    let config = pretrained.model()?;
    pretrained.special()?;
    pretrained.fill(config.init(pretrained.vocabularies()?, &CpuDevice::default()))
}

fn whole(place: &Path) -> Result<Model<Cpu>> {
    loaded(&Pretrained::Whole(Folder::open(place)?))
}

fn generator(model: Model<Cpu>) -> Generator<Cpu> {
    let Model::Generator(generator) = model else { panic!("it is an encoder") };
    generator
}

/// The logits of each pair's target.
fn logits(model: &Generator<Cpu>, golden: &Golden, special: Special) -> Vec<Vec<f64>> {
    let pair = |(source, target): (&Vec<u32>, &Vec<u32>)| {
        // The end is framed anew.
        Pair { source: source.clone(), target: target[..target.len() - 1].to_vec() }.framed(special)
    };
    let pairs: Vec<Pair> = golden.sources.iter().zip(&golden.targets).map(pair).collect();
    let logits = model.logits(&Batch::new(&pairs, &[], &CpuDevice::default()));
    let [_, width, vocabulary] = logits.dims();
    let all: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let rows = all.chunks(width * vocabulary).zip(&golden.targets);
    rows.map(|(row, target)| row[..target.len() * vocabulary].to_vec()).collect()
}

fn furthest(one: &[Vec<f64>], two: &[Vec<f64>]) -> f64 {
    assert_eq!(one.iter().map(Vec::len).collect::<Vec<_>>(), two.iter().map(Vec::len).collect::<Vec<_>>());
    one.concat().iter().zip(two.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn logits_and_greedy_output_are_those_of_transformers() {
    let golden = golden();
    for (name, answers) in &golden.folders {
        let pretrained = Pretrained::Whole(Folder::open(&place(name)).unwrap());
        let special = pretrained.special().unwrap();
        assert_eq!(special, Special { begin: 0, end: 1 });
        let model = generator(loaded(&pretrained).unwrap());
        let apart = furthest(&logits(&model, &golden, special), &answers.logits);
        assert!(apart < 1e-4, "{name}: {apart}");
        let decoding = Decoding { special, length: golden.longest };
        let greedy = model.greedy(&golden.sources, decoding, &CpuDevice::default());
        assert_eq!(greedy.iter().map(|one| &one.tokens).collect::<Vec<_>>(), answers.greedy.iter().collect::<Vec<_>>());
    }
    assert_eq!(golden.folders.len(), 3);
}

/// A projection that does nothing, so that two halves of one model are that model.
struct Transparent(BTreeMap<u64, Named>);

impl<B: Backend> ModuleMapper<B> for Transparent {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let device = tensor.device();
        let tensor = match self.0[&id.val()].name.as_str() {
            "projection.weight" => Tensor::<B, 2>::eye(tensor.dims()[0], &device).reshape(tensor.dims()),
            "projection.bias" => tensor.zeros_like(),
            _ => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[test]
fn two_halves_of_one_model_are_that_model() {
    let golden = golden();
    for (name, answers) in &golden.folders {
        let folder = Folder::open(&place(name)).unwrap();
        let halves = Pretrained::Halves { encoder: folder.clone(), decoder: folder };
        let model = loaded(&halves).unwrap();
        let names = named(&model);
        let model = generator(model.map(&mut Transparent(names)));
        let apart = furthest(&logits(&model, &golden, halves.special().unwrap()), &answers.logits);
        assert!(apart < 1e-4, "{name}: {apart}");
    }
    // And halves of two are neither.
    let mixed = Pretrained::Halves {
        encoder: Folder::open(&place("gated")).unwrap(),
        decoder: Folder::open(&place("whole")).unwrap(),
    };
    assert_eq!(
        mixed.digests().unwrap().into_keys().collect::<Vec<_>>(),
        ["init.decoder".to_owned(), "init.encoder".to_owned()]
    );
    loaded(&mixed).unwrap();
}

/// A copy of a golden folder to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(place(name)).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

fn refused(name: &str, damage: impl Fn(&Path)) -> String {
    let copy = copy(name);
    damage(copy.path());
    format!("{:#}", whole(copy.path()).err().unwrap_or_else(|| panic!("{name} was read")))
}

fn change(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Exchanges bytes of a file for others, as many.
fn exchange(path: &Path, old: &str, new: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(old.len()).position(|all| all == old.as_bytes()).unwrap();
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let has = |said: String, parts: &[&str]| assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    let weights = |folder: &Path| folder.join(WHOLE);
    let cut = |keep: usize| {
        move |folder: &Path| {
            let bytes = fs::read(weights(folder)).unwrap();
            fs::write(weights(folder), &bytes[..bytes.len() - keep]).unwrap();
        }
    };
    has(refused("whole", cut(1)), &["shared.weight", "cut off"]);
    has(refused("whole", cut(6000)), &["block", "cut off"]);
    has(refused("whole", |folder| fs::write(weights(folder), b"\x05").unwrap()), &[WHOLE, "damaged"]);
    let wi = "decoder.block.0.layer.2.DenseReluDense.wi.weight";
    let renamed = wi.replace("wi", "we");
    has(refused("whole", |folder| exchange(&weights(folder), wi, &renamed)), &[wi, "missing"]);
    let norm = "encoder.final_layer_norm.weight";
    let other = norm.replace("norm", "nurm");
    has(refused("whole", |folder| exchange(&weights(folder), norm, &other)), &[norm, "1 tensors are missing", &other]);
    let broken = |folder: &Path| {
        let mut bytes = fs::read(weights(folder)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(weights(folder), bytes).unwrap();
    };
    has(refused("whole", broken), &["shared.weight", "no numbers"]);
    let config =
        |key: &'static str, value: Value| move |folder: &Path| change(&folder.join("config.json"), key, value.clone());
    has(refused("whole", config("d_ff", json!(12))), &["DenseReluDense.wi.weight", "[10, 8]", "[12, 8]"]);
    has(refused("whole", config("num_layers", json!(1))), &["encoder.block.1", "has no"]);
    has(refused("whole", config("num_layers", json!("two"))), &["num_layers"]);
    has(refused("whole", config("num_layers", json!(100_000_000))), &["encoder.block.99999999", "missing"]);
    has(refused("whole", config("vocab_size", json!(1_000_000_000_000u64))), &["shared.weight", "[40, 8]"]);
    has(refused("whole", config("num_heads", json!(1u64 << 62))), &["relative_attention_bias.weight", "[8, 2]"]);
    has(refused("whole", config("layer_norm_epsilon", json!("x"))), &["layer_norm_epsilon = \"x\" is no number"]);
    has(refused("whole", config("eos_token_id", json!(5000))), &["eos_token_id = 5000 is none of its 40 tokens"]);
    has(refused("whole", config("decoder_start_token_id", json!(40))), &["decoder_start_token_id = 40"]);
    has(refused("whole", config("eos_token_id", json!("x"))), &["eos_token_id = \"x\""]);
    has(refused("whole", config("model_type", json!("bert"))), &["bert", "t5"]);
    has(refused("whole", config("feed_forward_proj", json!("gated-silu"))), &["gated-silu"]);
    let shard = "model-00002-of-00003.safetensors";
    has(refused("sharded", |folder| fs::remove_file(folder.join(shard)).unwrap()), &[shard, "missing"]);
    has(refused("sharded", |folder| change(&folder.join(INDEX), "weight_map", json!({ "a": "../x" }))), &["../x"]);
    has(refused("sharded", |folder| fs::remove_file(folder.join("config.json")).unwrap()), &["config.json"]);
}
