//! Against PyTorch and `transformers`: `golden.json` is what `bench/models/optimizers.py` writes.

use std::sync::Mutex;

use burn::module::AutodiffModule;
use burn::tensor::TensorData;
use codepair_model::{Batch, Cpu, CpuDevice, Criterion, Loss, ModelConfig, Pair, Task, TrainCpu, Vocabularies, save};
use codepair_tokenizer::Special;

use super::*;
use crate::clip::clip;

#[derive(Deserialize)]
struct Golden {
    weight: Vec<Vec<f32>>,
    gradients: Vec<Vec<Vec<f32>>>,
    cases: Vec<Case>,
}

/// The weights after all steps with these gradients.
#[derive(Deserialize)]
struct Case {
    optimizer: OptimizerConfig,
    kind: String,
    rate: f64,
    weight: Vec<Vec<f64>>,
}

fn tensor(rows: &[Vec<f32>]) -> Tensor<Cpu, 2> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), &CpuDevice::default())
}

#[test]
fn steps_equal_the_reference_s() {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert!(golden.cases.len() >= 8);
    for case in golden.cases {
        let kind = match case.kind.as_str() {
            "matrix" => ParameterKind::Matrix,
            "embedding" => ParameterKind::Embedding,
            other => panic!("{other}"),
        };
        let mut weight = tensor(&golden.weight);
        let mut memory = Vec::new();
        for (at, gradient) in golden.gradients.iter().enumerate() {
            let (gradient, step) = (tensor(gradient), at as u64 + 1);
            let one = Update { kind, weight, gradient, memory: &mut memory, rate: case.rate, step };
            weight = case.optimizer.update(one);
        }
        let got: Vec<f64> = weight.into_data().iter::<f64>().collect();
        for (got, expected) in got.iter().zip(case.weight.concat()) {
            assert!((got - expected).abs() < 2e-6, "{:?} {}: {got} and {expected}", case.optimizer, case.kind);
        }
    }
}

/// burn has one source of random numbers for all threads.
static SEEDING: Mutex<()> = Mutex::new(());

/// A small model, its optimizer after one good step, and the gradients of a loss that is multiplied by `factor`.
fn stepped(config: OptimizerConfig, factor: f32) -> (Model<TrainCpu>, Optimizer<TrainCpu>, Gradients<TrainCpu>) {
    let device = CpuDevice::default();
    let _alone = SEEDING.lock().unwrap();
    TrainCpu::seed(&device, 5);
    let kind = serde_json::json!({ "kind": "lstm", "embedding": 4, "hidden": 4, "dropout": 0.0 });
    let kind: ModelConfig = serde_json::from_value(kind).unwrap();
    let model: Model<TrainCpu> = kind.init(Vocabularies { source: 9, target: 9 }, &device);
    // burn draws a weight when it is first touched.
    save(&model.valid()).unwrap();
    let mut optimizer = Optimizer::new(config, &model);
    let gradients = |model: &Model<TrainCpu>, factor: f32| {
        let pair = Pair { source: vec![3, 4, 5], target: vec![6, 7] }.framed(Special::default());
        let batch = Batch::new(&[pair], &[], &device);
        let loss = Loss::default_of(Task::Generation);
        let loss = model.loss(&batch, &Criterion { loss, class_weights: None }).mul_scalar(factor);
        clip(model, GradientsParams::from_grads(loss.backward(), model), 1.0, &device).0
    };
    let first = gradients(&model, 1.0);
    let model = optimizer.step(model, first, 1e-2, 1);
    let second = gradients(&model, factor);
    (model, optimizer, second)
}

const ALL: [&str; 5] = ["adamw", "lazy_adamw", "adafactor", "sgd", "muon"];

fn config(kind: &str) -> OptimizerConfig {
    serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap()
}

#[test]
fn gradients_that_are_no_numbers_move_nothing() {
    for kind in ALL {
        for is_known in [true, false] {
            let (model, mut optimizer, gradients) = stepped(config(kind), f32::NAN);
            let (weights, memory) = (save(&model.valid()).unwrap(), optimizer.save().unwrap());
            // As the processor does, and as a device does.
            let model = if is_known {
                optimizer.step(model, gradients, 1e-2, 2)
            } else {
                model.map(&mut Stepping { optimizer: &mut optimizer, gradients, is_known, rate: 1e-2, step: 2 })
            };
            assert!(save(&model.valid()).unwrap() == weights && optimizer.save().unwrap() == memory, "{kind}");
            let (model, mut optimizer, gradients) = stepped(config(kind), 1.0);
            let model =
                model.map(&mut Stepping { optimizer: &mut optimizer, gradients, is_known, rate: 1e-2, step: 2 });
            assert!(save(&model.valid()).unwrap() != weights, "{kind}");
        }
    }
}

#[test]
fn what_was_remembered_is_gone_on_with() {
    for kind in ALL {
        let (model, mut optimizer, gradients) = stepped(config(kind), 1.0);
        let (weights, memory) = (save(&model.valid()).unwrap(), optimizer.save().unwrap());
        let straight = save(&optimizer.step(model, gradients, 1e-2, 2).valid()).unwrap();
        let (model, _, gradients) = stepped(config(kind), 1.0);
        assert!(save(&model.valid()).unwrap() == weights);
        let mut other = Optimizer::new(config(kind), &model);
        other.load(&memory, &CpuDevice::default()).unwrap();
        assert!(other.save().unwrap() == memory, "{kind}");
        assert!(save(&other.step(model, gradients, 1e-2, 2).valid()).unwrap() == straight, "{kind}");
        assert!(other.load(b"no file", &CpuDevice::default()).is_err());
    }
}
