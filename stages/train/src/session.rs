//! The loop.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use burn::module::{AutodiffModule, Module};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer};
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::ElementConversion;
use burn::tensor::backend::{AutodiffBackend, Backend};
use bytes::Bytes;
use codepair_model::{Batch, Model, ModelCard, Pair, Task, Vocabularies, parameters, save};
use codepair_runtime::{Context, Interrupt, Progress as Bar, sha256};
use codepair_schemas::rows::TrainingStep;

use crate::batches::Epoch;
use crate::checkpoint::{Checkpoints, Files, Progress};
use crate::data::{self, Data, Example};
use crate::{TrainConfig, clip};

const MODEL: &str = "model.bin";
const OPTIMIZER: &str = "optimizer.bin";
const BEST: &str = "best.safetensors";

type Recording = BinBytesRecorder<FullPrecisionSettings>;
type Optimiser<B> = OptimizerAdaptor<Adam, Model<B>, B>;

/// Everything that changes while training.
struct Session<'a, B: AutodiffBackend> {
    config: &'a TrainConfig,
    name: &'a str,
    device: &'a B::Device,
    data: &'a Data,
    model: Model<B>,
    optimizer: Optimiser<B>,
    best: Option<Bytes>,
    progress: Progress,
    parameters: u64,
    before: f64,
    started: Instant,
}

/// Trains one model and puts it into the artifact.
pub(crate) fn train<B: AutodiffBackend>(
    context: &mut Context,
    name: &str,
    config: &TrainConfig,
    device: &B::Device,
) -> Result<()> {
    let data = data::read(context, config)?;
    let vocabularies = Vocabularies {
        source: vocabulary(context, &config.source.tokenizer)?,
        target: vocabulary(context, &config.target.tokenizer)?,
    };
    tracing::info!(
        "{name}: {} training and {} validation pairs, {} too long",
        data.training.len(),
        data.validation.len(),
        data.too_long
    );
    let mut session = Session::<B>::new(config, name, device, &data, vocabularies)?;
    let checkpoints = Checkpoints {
        store: context.store.clone(),
        folder: context.attempt.checkpoints(),
        attempt: context.attempt.id(),
    };
    checkpoints.resume(|progress, files| session.restore(progress, files))?;
    let resumed_at = session.progress.step;
    if resumed_at > 0 {
        tracing::info!("{name} goes on after step {resumed_at}, epoch {}", session.progress.epoch);
    }
    session.run(&checkpoints, &context.interrupt)?;
    let Session { progress, best, parameters, .. } = session;
    context.attempt.note("resumed_at_step", resumed_at);
    let best = best.context("no epoch was validated")?;
    let card = ModelCard {
        name: name.to_owned(),
        model: config.model,
        vocabularies,
        source: config.source.clone(),
        target: config.target.clone(),
        parameters: parameters as usize,
    };
    publish(context, &card, best, &progress, &data)
}

fn vocabulary(context: &Context, tokenizer: &str) -> Result<usize> {
    let json: serde_json::Value =
        serde_json::from_slice(&context.read_file("tokenizers", &format!("{tokenizer}.json"))?)?;
    json["model"]["vocab"]
        .as_object()
        .map(serde_json::Map::len)
        .with_context(|| format!("{tokenizer}.json has no vocabulary"))
}

fn publish(context: &mut Context, card: &ModelCard, weights: Bytes, progress: &Progress, data: &Data) -> Result<()> {
    let source = context.read_file("tokenizers", &format!("{}.json", card.source.tokenizer))?;
    let target = context.read_file("tokenizers", &format!("{}.json", card.target.tokenizer))?;
    let attempt = &mut context.attempt;
    attempt.write_rows(progress.rows.iter().cloned())?;
    attempt.add_file("models", "model.safetensors", weights)?;
    attempt.add_file("models", "config.json", serde_json::to_vec_pretty(card)?)?;
    attempt.add_file("models", "source_tokenizer.json", source)?;
    attempt.add_file("models", "target_tokenizer.json", target)?;
    attempt.note("parameters", card.parameters);
    attempt.note("training_seconds", progress.elapsed_seconds);
    attempt.note("training_pairs", data.training.len());
    attempt.note("validation_pairs", data.validation.len());
    attempt.note("pairs_too_long", data.too_long);
    attempt.note("best_epoch", progress.best_epoch);
    Ok(())
}

impl<'a, B: AutodiffBackend> Session<'a, B> {
    fn new(
        config: &'a TrainConfig,
        name: &'a str,
        device: &'a B::Device,
        data: &'a Data,
        vocabularies: Vocabularies,
    ) -> Result<Self> {
        B::seed(device, config.seed);
        let model: Model<B> = config.model.init(vocabularies, device);
        // burn draws a weight when it is first touched; recording touches all, in order.
        let count = parameters(&model);
        let touched = Recording::default().record(model.clone().into_record(), ()).map_err(|e| anyhow!("{e}"))?;
        tracing::info!("{name}: {count} parameters, {:.1} MB", touched.len() as f64 / 1e6);
        let optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let progress = Progress { epoch: 1, best_loss_bits: f64::INFINITY.to_bits(), ..Progress::default() };
        Ok(Self {
            config,
            name,
            device,
            data,
            model,
            optimizer,
            best: None,
            progress,
            parameters: count as u64,
            before: 0.0,
            started: Instant::now(),
        })
    }

    /// Trains until the epochs are done or validation stops improving.
    fn run(&mut self, checkpoints: &Checkpoints, interrupt: &Interrupt) -> Result<()> {
        // Where the process is asked to end, the step under way and a checkpoint come first.
        let _hold = interrupt.hold();
        let per_epoch = self.order().batches();
        let bar = Bar::new(&format!("training {}", self.name), "steps", per_epoch * u64::from(self.config.epochs));
        bar.resume(self.progress.step);
        let mut saved = Instant::now();
        while !self.progress.finished {
            let order = self.order();
            let mut since = Since::new();
            let data = self.data;
            for batch in order.batches_from(self.progress.batch, |example| data.training.tokens(example)) {
                let (loss, norm, items, tokens) = self.step(&batch?)?;
                since.add(loss, norm, items, tokens);
                bar.add(1);
                self.progress.batch += 1;
                if self.progress.step.is_multiple_of(self.config.log_steps) {
                    bar.remark(&format!("epoch {}, loss {:.3}", self.progress.epoch, since.mean()));
                    let row = self.row("train", since.mean(), Some(&since));
                    self.progress.rows.push(row);
                    since = Since::new();
                }
                let pause = Duration::from_secs(self.config.checkpoint_seconds);
                let is_due = saved.elapsed() >= pause && (self.progress.batch as u64) < per_epoch;
                if is_due || interrupt.is_asked() {
                    checkpoints.save(&self.snapshot_progress(), self.snapshot()?)?;
                    saved = Instant::now();
                }
                if interrupt.is_asked() {
                    bail!("interrupted after step {}; run it again to go on from there", self.progress.step);
                }
            }
            self.end_epoch()?;
            checkpoints.save(&self.snapshot_progress(), self.snapshot()?)?;
            saved = Instant::now();
        }
        self.progress.elapsed_seconds = self.elapsed();
        Ok(())
    }

    /// The order of the epoch that is trained.
    fn order(&self) -> Epoch {
        Epoch::new(self.data.training.len(), self.config.batch_size, self.config.seed, self.progress.epoch)
    }

    /// One optimizer step: loss, gradient norm, items, tokens.
    fn step(&mut self, batch: &[u64]) -> Result<(f64, f64, usize, usize)> {
        self.progress.step += 1;
        // Dropout draws from a generator whose state cannot be saved, so every step seeds it anew.
        let seed = sha256(format!("{} {}", self.config.seed, self.progress.step).as_bytes());
        B::seed(self.device, u64::from_str_radix(&seed[..16], 16)?);
        let most = self.config.negatives_per_pair.unwrap_or(usize::MAX);
        let examples = batch.iter().map(|&example| self.data.training.get(example, most));
        let batch = self.batch::<B>(examples.collect::<Result<_>>()?);
        let tokens = batch.tokens;
        let (loss, items) = self.model.loss(&batch);
        let value: f64 = loss.clone().into_scalar().elem();
        if !value.is_finite() {
            bail!("the loss is {value} at step {}; lower train.{}.learning_rate", self.progress.step, self.name);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        let (gradients, norm) = clip::clip(&self.model, gradients, self.config.gradient_norm);
        self.model = self.optimizer.step(self.config.learning_rate, self.model.clone(), gradients);
        Ok((value, norm, items, tokens))
    }

    fn batch<C: Backend<Device = B::Device>>(&self, examples: Vec<Example>) -> Batch<C> {
        let generation = self.config.model.task() == Task::Generation;
        let (pairs, negatives): (Vec<Pair>, Vec<_>) = examples.into_iter().map(|e| (e.pair, e.negatives)).unzip();
        let pairs: Vec<Pair> = pairs.into_iter().map(|pair| if generation { pair.framed() } else { pair }).collect();
        Batch::new(&pairs, &negatives.concat(), self.device)
    }

    /// Validates, remembers the best weights, and decides whether to go on.
    fn end_epoch(&mut self) -> Result<()> {
        let loss = self.validate()?;
        if !loss.is_finite() {
            bail!(
                "the validation loss is {loss} after epoch {}; lower train.{}.learning_rate",
                self.progress.epoch,
                self.name
            );
        }
        let row = self.row("validation", loss, None);
        self.progress.rows.push(row);
        tracing::info!("{}: epoch {}, validation loss {loss:.4}", self.name, self.progress.epoch);
        if loss < f64::from_bits(self.progress.best_loss_bits) {
            self.progress.best_loss_bits = loss.to_bits();
            self.progress.best_epoch = self.progress.epoch;
            self.best = Some(save(&self.model.valid())?.into());
        }
        let without = self.progress.epoch - self.progress.best_epoch;
        let stopped = without >= self.config.patience;
        if stopped {
            tracing::info!("{}: stopped early, {without} epochs without a better loss", self.name);
        }
        self.progress.finished = stopped || self.progress.epoch == self.config.epochs;
        self.progress.epoch += u32::from(!self.progress.finished);
        self.progress.batch = 0;
        Ok(())
    }

    /// Mean loss over the validation split, without dropout.
    fn validate(&self) -> Result<f64> {
        let model = self.model.valid();
        let (examples, size) = (&self.data.validation, self.config.batch_size as u64);
        let mut since = Since::new();
        for start in (0..examples.len()).step_by(self.config.batch_size) {
            let chunk = start..(start + size).min(examples.len());
            let chunk = chunk.map(|example| examples.get(example, 0)).collect::<Result<_>>()?;
            let (loss, items) = model.loss(&self.batch::<B::InnerBackend>(chunk));
            since.add(loss.into_scalar().elem(), 0.0, items, 0);
        }
        Ok(since.mean())
    }

    fn elapsed(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    fn row(&self, split: &str, loss: f64, window: Option<&Since>) -> TrainingStep {
        TrainingStep {
            model: self.name.to_owned(),
            step: self.progress.step,
            epoch: self.progress.epoch,
            split: split.to_owned(),
            loss,
            learning_rate: self.config.learning_rate,
            gradient_norm: window.map(|w| w.norms / w.steps as f64),
            tokens_per_second: window.map(|w| w.tokens as f64 / w.started.elapsed().as_secs_f64()),
            elapsed_seconds: self.elapsed(),
            parameters: self.parameters,
        }
    }

    fn snapshot_progress(&self) -> Progress {
        Progress { elapsed_seconds: self.elapsed(), ..self.progress.clone() }
    }

    fn snapshot(&self) -> Result<Files> {
        let recorder = Recording::default();
        let model = recorder.record(self.model.clone().into_record(), ()).map_err(|e| anyhow!("{e}"))?;
        let optimizer = recorder.record(self.optimizer.to_record(), ()).map_err(|e| anyhow!("{e}"))?;
        let mut files = Files::from([(MODEL.to_owned(), model.into()), (OPTIMIZER.to_owned(), optimizer.into())]);
        if let Some(best) = &self.best {
            files.insert(BEST.to_owned(), best.clone());
        }
        Ok(files)
    }

    fn restore(&mut self, progress: Progress, files: &Files) -> Result<()> {
        let file = |name: &str| files.get(name).map(|b| b.to_vec()).with_context(|| format!("{name} is missing"));
        let recorder = Recording::default();
        let model = recorder.load(file(MODEL)?, self.device).map_err(|e| anyhow!("{e}"))?;
        let optimizer = recorder.load(file(OPTIMIZER)?, self.device).map_err(|e| anyhow!("{e}"))?;
        self.model = self.model.clone().load_record(model);
        self.optimizer = self.optimizer.clone().load_record(optimizer);
        self.best = files.get(BEST).cloned();
        self.before = progress.elapsed_seconds;
        self.progress = progress;
        Ok(())
    }
}

/// Sums over the steps since the last row.
struct Since {
    loss: f64,
    items: usize,
    norms: f64,
    steps: usize,
    tokens: usize,
    started: Instant,
}

impl Since {
    fn new() -> Self {
        Self { loss: 0.0, items: 0, norms: 0.0, steps: 0, tokens: 0, started: Instant::now() }
    }

    fn add(&mut self, loss: f64, norm: f64, items: usize, tokens: usize) {
        self.loss += loss * items as f64;
        self.items += items;
        self.norms += norm;
        self.steps += 1;
        self.tokens += tokens;
    }

    fn mean(&self) -> f64 {
        if self.items == 0 { 0.0 } else { self.loss / self.items as f64 }
    }
}
