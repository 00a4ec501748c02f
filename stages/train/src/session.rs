//! The loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion as _, Tensor};
use bytes::Bytes;
use codepair_model::{
    Batch, Criterion, CrossEntropy, Loss, Model, ModelCard, Pair, Task, Vocabularies, load, parameters, save,
};
use codepair_runtime::{Context, Interrupt, Progress as Bar, config_error, input_error, peak_memory_bytes, sha256};
use codepair_schemas::rows::TrainingStep;
use codepair_tokenizer::{Special, Tokenizer};

use crate::averaging::Average;
use crate::batches::Epoch;
use crate::best::{BestBy, Writing};
use crate::checkpoint::{Checkpoints, Files, Progress, Saver};
use crate::data::{self, Data, Example};
use crate::init::{self, First};
use crate::optimizers::{Gradients, Optimizer};
use crate::sampling;
use crate::sums::{Means, Sums};
use crate::{TrainConfig, clip, events};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";

/// A validation loss so many times that of who knows nothing says that a rate broke the weights.
const BROKEN: f64 = 10.0;

/// So many steps in a row without numbers as gradients end the training.
const MOST_SKIPPED: u64 = 10;

/// Everything that changes while training.
struct Session<'a, B: AutodiffBackend> {
    config: &'a TrainConfig,
    name: &'a str,
    device: &'a B::Device,
    data: &'a Data,
    model: Model<B>,
    writing: Writing<'a>,
    criterion: Criterion<B>,
    /// Of each target token, for generators.
    token_bytes: Vec<usize>,
    optimizer: Optimizer<B>,
    average: Option<Average<B::InnerBackend>>,
    best: Option<Bytes>,
    progress: Progress,
    /// Steps of all epochs, as many as the first has.
    steps: u64,
    parameters: u64,
    before: f64,
    started: Instant,
}

/// Trains one model and puts it into the artifact.
pub(crate) fn train<B: AutodiffBackend>(
    context: &mut Context,
    name: &str,
    (config, first): (&TrainConfig, &First),
    device: &B::Device,
) -> Result<()> {
    let tokenizers = [&config.source, &config.target].map(|side| tokenizer(context, &side.tokenizer));
    let [source, target] = tokenizers;
    let (source, target) = (source?, target?);
    first.check_tokenizers(name, config, [&source, &target])?;
    check_framing(name, config, [&source, &target])?;
    let parent = match first {
        First::Trained(init) => Some(init::trained(context, name, (init, &config.model), [&source, &target])?),
        First::Fresh | First::Pretrained(_) => None,
    };
    let (vocabularies, special) = match (first, &parent) {
        (First::Pretrained(pretrained), _) => (pretrained.vocabularies()?, pretrained.special()?),
        (_, Some(parent)) => (parent.card.vocabularies, parent.card.special),
        _ => {
            let vocabularies = Vocabularies { source: source.vocabulary(), target: target.vocabulary() };
            (vocabularies, special(config, &target)?)
        }
    };
    let mut data = data::read(context, config, [&source, &target], vocabularies.target)?;
    data.target_counts[special.end as usize] += data.training.len();
    tracing::info!(
        "{name}: {} training and {} validation pairs, {} too long",
        data.training.len(),
        data.validation.len(),
        data.too_long
    );
    B::seed(device, config.seed);
    let mut model: Model<B> = config.model.init(vocabularies, device);
    // burn draws a weight when it is first touched; saving touches all, in order.
    let drawn = save(&model.valid())?;
    tracing::info!("{name}: {} parameters, {:.1} MB", parameters(&model), drawn.len() as f64 / 1e6);
    if let Some(parent) = parent {
        parent.fill(name, &mut model)?;
    }
    if let First::Pretrained(pretrained) = first {
        model = pretrained.fill(model).with_context(|| format!("train.{name}.init"))?;
    }
    let writing = Writing { tokenizer: &target, special, length: config.target.max_tokens };
    let mut session = Session::new(config, name, device, &data, model, writing)?;
    let checkpoints = Arc::new(Checkpoints {
        store: context.store.clone(),
        folder: context.attempt.checkpoints(),
        attempt: context.attempt.id(),
    });
    if config.model.task() == Task::Generation {
        session.token_bytes = (0..vocabularies.target as u32).map(|token| target.bytes(token)).collect();
    }
    checkpoints.resume(|progress, files| session.restore(progress, files))?;
    let resumed_at = session.progress.step;
    if resumed_at > 0 {
        tracing::info!("{name} goes on after step {resumed_at}, epoch {}", session.progress.epoch);
    }
    if config.schedule.warmup_steps() >= session.steps {
        tracing::warn!(
            "{name}: the warm-up takes {} steps, and the training has {}: the whole rate is never reached",
            config.schedule.warmup_steps(),
            session.steps
        );
    }
    session.run(Saver::new(checkpoints), &context.interrupt)?;
    let Session { progress, best, parameters, .. } = session;
    context.attempt.note("resumed_at_step", resumed_at);
    let best = best.context("no epoch was validated")?;
    let card = ModelCard {
        name: name.to_owned(),
        model: config.model.clone(),
        vocabularies,
        source: config.source.clone(),
        target: config.target.clone(),
        special,
        parameters: parameters as usize,
    };
    publish(context, &card, best, &progress, &data)
}

/// The tokens that begin and end what a generator writes; a search model writes nothing.
fn special(config: &TrainConfig, target: &Tokenizer) -> Result<Special> {
    match (target.special(), config.model.task()) {
        (Some(special), _) => Ok(special),
        (None, Task::Search) => Ok(Special::default()),
        (None, Task::Generation) => Err(input_error(format!(
            "the tokenizer {} has no tokens that begin and end a text; those of ours, <s> and </s>, those of T5's, <pad> and </s>, and those of \
             BERT's, [CLS] and [SEP], are known",
            config.target.tokenizer
        ))),
    }
}

/// That something is left of a text beside what its tokenizer puts around it.
fn check_framing(name: &str, config: &TrainConfig, tokenizers: [&Tokenizer; 2]) -> Result<()> {
    let sides = [("source", &config.source, true), ("target", &config.target, config.model.task() == Task::Search)];
    for ((key, side, is_framed), tokenizer) in sides.into_iter().zip(tokenizers) {
        let framing = if is_framed { tokenizer.framing() } else { 0 };
        if side.max_tokens <= framing {
            return Err(config_error(format!(
                "train.{name}.{key}.max_tokens = {} leaves nothing of a text: {} puts {framing} tokens around each",
                side.max_tokens, side.tokenizer
            )));
        }
    }
    Ok(())
}

fn tokenizer(context: &Context, name: &str) -> Result<Tokenizer> {
    Ok(Tokenizer::from_json(&context.read_file("tokenizers", &format!("{name}.json"))?)?)
}

/// The order of an epoch.
fn order(config: &TrainConfig, data: &Data, epoch: u32) -> Epoch {
    Epoch::new(data.rows(), config.batch_size, config.batch_tokens, config.seed, epoch)
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
    attempt.note("steps_skipped", progress.skipped);
    if let Some(bits) = progress.best_bits_per_byte {
        attempt.note("bits_per_byte", bits);
    }
    let began = jiff::Timestamp::now().as_millisecond() as f64 / 1e3 - progress.elapsed_seconds;
    attempt.add_file("events", "events.out.tfevents.codepair", events::file(&progress.rows, began))?;
    // It holds times, speeds and memory.
    attempt.mark_volatile("events");
    Ok(())
}

impl<'a, B: AutodiffBackend> Session<'a, B> {
    fn new(
        config: &'a TrainConfig,
        name: &'a str,
        device: &'a B::Device,
        data: &'a Data,
        model: Model<B>,
        writing: Writing<'a>,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(config.optimizer, &model);
        let loss = config.loss();
        let class_weights = match loss {
            Loss::CrossEntropy(loss) => loss.weights(&data.target_counts),
            Loss::Softmax(_) | Loss::CosineHinge(_) => None,
        };
        let class_weights = class_weights.map(|weights| Tensor::from_floats(weights.as_slice(), device));
        let batches = order(config, data, 1).count(|row| data.training.tokens(data.example(1, row)?))?;
        let progress = Progress { epoch: 1, best_loss_bits: f64::INFINITY.to_bits(), ..Progress::default() };
        Ok(Self {
            config,
            name,
            device,
            data,
            parameters: parameters(&model) as u64,
            model,
            writing,
            criterion: Criterion { loss, class_weights },
            token_bytes: Vec::new(),
            optimizer,
            average: config.average.map(Average::new),
            best: None,
            progress,
            steps: batches.div_ceil(config.accumulate as u64) * u64::from(config.epochs),
            before: 0.0,
            started: Instant::now(),
        })
    }

    /// Trains until the epochs are done or validation stops improving.
    fn run(&mut self, mut saver: Saver, interrupt: &Interrupt) -> Result<()> {
        // Where the process is asked to end, the step under way and a checkpoint come first.
        let _hold = interrupt.hold();
        let bar = Bar::new(&format!("training {}", self.name), "steps", self.steps);
        bar.resume(self.progress.step);
        let mut saved = (Instant::now(), self.progress.step);
        let mut sums = Sums::new(self.progress.streak, self.device);
        while !self.progress.finished {
            let (order, data) = (order(self.config, self.data, self.progress.epoch), self.data);
            let epoch = self.progress.epoch;
            let tokens = |row| data.training.tokens(data.example(epoch, row)?);
            let batches = order.batches_from(self.progress.batch, tokens);
            let mut batches = batches.peekable();
            loop {
                let together = batches.by_ref().take(self.config.accumulate).collect::<Result<Vec<_>>>()?;
                if together.is_empty() {
                    break;
                }
                self.step(&together, &mut sums)?;
                bar.add(1);
                if self.progress.step.is_multiple_of(self.config.log_steps) {
                    let loss = self.log(&mut sums)?;
                    bar.remark(&format!("epoch {}, loss {loss:.3}", self.progress.epoch));
                }
                let steps = self.progress.step - saved.1;
                let is_due = saved.0.elapsed() >= Duration::from_secs(self.config.checkpoint_seconds)
                    || self.config.checkpoint_steps.is_some_and(|due| steps >= due);
                let is_asked = interrupt.is_asked();
                // After the last step of an epoch comes the checkpoint of the epoch.
                if is_due && batches.peek().is_some() || is_asked {
                    self.log(&mut sums)?;
                    saver.save(self.snapshot_progress(), self.snapshot()?)?;
                    saved = (Instant::now(), self.progress.step);
                }
                if is_asked {
                    saver.wait()?;
                    bail!("interrupted after step {}; run it again to go on from there", self.progress.step);
                }
            }
            self.log(&mut sums)?;
            self.end_epoch()?;
            saver.save(self.snapshot_progress(), self.snapshot()?)?;
            saved = (Instant::now(), self.progress.step);
        }
        saver.wait()?;
        self.progress.elapsed_seconds = self.elapsed();
        Ok(())
    }

    /// The rate of the step that is made.
    fn rate(&self) -> f64 {
        self.config.learning_rate * self.config.schedule.share(self.progress.step, self.steps)
    }

    /// One step of the optimizer over these batches together.
    fn step(&mut self, batches: &[Vec<u64>], sums: &mut Sums<B::InnerBackend>) -> Result<()> {
        self.progress.step += 1;
        self.progress.batch += batches.len();
        // Dropout draws from a generator whose state cannot be saved, so every step seeds it anew.
        let seed = sha256(format!("{} {}", self.config.seed, self.progress.step).as_bytes());
        let seed = u64::from_str_radix(&seed[..16], 16)?;
        B::seed(self.device, seed);
        let most = self.config.negatives_per_pair.unwrap_or(usize::MAX);
        let batches = batches.iter().map(|batch| {
            let examples = batch
                .iter()
                .map(|&row| self.data.training.get(self.data.example(self.progress.epoch, row)?, most, Some(seed)));
            let examples = examples.collect::<Result<Vec<_>>>()?;
            let bytes = self.bytes(&examples);
            Ok((self.sampled(examples), bytes))
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let items: usize = batches.iter().map(|(batch, _)| self.model.items(batch)).sum();
        let mut all = GradientsAccumulator::new();
        let mut sum = Tensor::zeros([1], self.device);
        for (batch, bytes) in &batches {
            sums.add_tokens(batch.tokens(), *bytes);
            // Each counts by its share of the items.
            let share = self.model.items(batch) as f64 / items.max(1) as f64;
            let loss = self.model.loss(batch, &self.criterion).mul_scalar(share);
            sum = sum + loss.clone().inner();
            all.accumulate(&self.model, GradientsParams::from_grads(loss.backward(), &self.model));
        }
        let (gradients, norm) = clip::clip(&self.model, all.grads(), self.config.gradient_norm, self.device);
        let finite = gradients.finite.clone().bool_and(sum.clone().is_finite());
        sums.add(sum, items, norm, &finite);
        let gradients = Gradients { finite, ..gradients };
        self.model = self.optimizer.step(self.model.clone(), gradients, self.rate(), self.progress.step);
        if let Some(average) = &mut self.average {
            average.step(&self.model.valid(), self.progress.step);
        }
        Ok(())
    }

    /// Writes a row of what was summed, and returns the loss; ends a training whose steps come to nothing.
    fn log(&mut self, sums: &mut Sums<B::InnerBackend>) -> Result<f64> {
        let Some(means) = sums.take()? else { return Ok(f64::NAN) };
        self.progress.skipped += means.skipped;
        self.progress.streak = means.streak;
        if means.streak >= MOST_SKIPPED {
            bail!(
                "the gradients of the last {} steps before step {} are no numbers; lower train.{}.learning_rate",
                means.streak,
                self.progress.step,
                self.name
            );
        }
        if means.loss.is_nan() {
            // None of the steps counted.
            return Ok(means.loss);
        }
        // Smoothing and weights make another loss of the likelihood.
        let is_likelihood = self.criterion.loss == Loss::CrossEntropy(CrossEntropy::default());
        let row = self.row("train", means.loss, Some(means), is_likelihood.then_some(means.bits_per_byte));
        self.progress.rows.push(row);
        Ok(means.loss)
    }

    /// A batch to learn from: where its share says so, what the model itself would write stands in place of right tokens.
    fn sampled(&self, examples: Vec<Example>) -> Batch<B> {
        let share = self.config.teacher_forcing.share(self.progress.step, self.steps);
        match &self.model {
            Model::Generator(model) if share < 1.0 => {
                let right = self.batch::<B::InnerBackend>(examples.clone());
                sampling::mixed(&model.valid(), self.batch(examples), right, share)
            }
            _ => self.batch(examples),
        }
    }

    fn batch<C: Backend<Device = B::Device>>(&self, examples: Vec<Example>) -> Batch<C> {
        let generation = self.config.model.task() == Task::Generation;
        let (pairs, negatives): (Vec<Pair>, Vec<_>) = examples.into_iter().map(|e| (e.pair, e.negatives)).unzip();
        let framed = |pair: Pair| if generation { pair.framed(self.writing.special) } else { pair };
        let pairs: Vec<Pair> = pairs.into_iter().map(framed).collect();
        Batch::new(&pairs, &negatives.concat(), self.device)
    }

    /// Validates, remembers the best weights, and decides whether to go on.
    fn end_epoch(&mut self) -> Result<()> {
        if let Some(average) = &mut self.average {
            average.epoch(&self.model.valid());
        }
        let model = self.kept();
        let (loss, bits_per_byte) = self.validate(&model)?;
        if !loss.is_finite() {
            bail!(
                "the validation loss is {loss} after epoch {}; lower train.{}.learning_rate",
                self.progress.epoch,
                self.name
            );
        }
        // Who knows nothing has the logarithm of the vocabulary.
        let knows_nothing = (self.token_bytes.len().max(2) as f64).ln();
        if self.config.model.task() == Task::Generation && loss > BROKEN * knows_nothing {
            bail!(
                "the validation loss is {loss:.0} after epoch {}, and {knows_nothing:.1} for who knows nothing: the weights are broken; \
                 lower train.{}.learning_rate",
                self.progress.epoch,
                self.name
            );
        }
        let (device, validation) = (self.device, &self.data.validation);
        let scored = |best: &BestBy| best.score(&model, validation, self.writing, device);
        let score = self.config.best_by.as_ref().map(scored).transpose()?;
        let row =
            TrainingStep { score: score.map(|(score, _)| score), ..self.row("validation", loss, None, bits_per_byte) };
        self.progress.rows.push(row);
        let also = self.config.best_by.as_ref().zip(score);
        let also = also.map_or_else(String::new, |(best, (score, _))| format!(", {} {score:.4}", best.metric));
        tracing::info!("{}: epoch {}, validation loss {loss:.4}{also}", self.name, self.progress.epoch);
        let least = score.map_or(loss, |(_, least)| least);
        if least < f64::from_bits(self.progress.best_loss_bits) {
            self.progress.best_loss_bits = least.to_bits();
            self.progress.best_bits_per_byte = bits_per_byte;
            self.progress.best_epoch = self.progress.epoch;
            self.best = Some(save(&model)?.into());
        }
        let without = self.progress.epoch - self.progress.best_epoch;
        let stopped = without >= self.config.patience;
        if stopped {
            tracing::info!("{}: stopped early, {without} epochs that were no better", self.name);
        }
        self.progress.finished = stopped || self.progress.epoch == self.config.epochs;
        self.progress.epoch += u32::from(!self.progress.finished);
        self.progress.batch = 0;
        Ok(())
    }

    /// Mean loss over the validation split, without dropout, and of a generator without what its loss has against overfitting: the
    /// likelihoods of different losses compare.
    fn validate(&self, model: &Model<B::InnerBackend>) -> Result<(f64, Option<f64>)> {
        let loss = match self.criterion.loss {
            Loss::CrossEntropy(_) => Loss::CrossEntropy(CrossEntropy::default()),
            other => other,
        };
        let criterion = Criterion { loss, class_weights: None };
        let (examples, size) = (&self.data.validation, self.config.batch_size as u64);
        let mut sum = Tensor::<B::InnerBackend, 1>::zeros([1], self.device);
        let (mut items, mut bytes) = (0, 0);
        for start in (0..examples.len()).step_by(self.config.batch_size) {
            let chunk = start..(start + size).min(examples.len());
            let chunk = chunk.map(|example| examples.get(example, 0, None)).collect::<Result<Vec<_>>>()?;
            bytes += self.bytes(&chunk);
            let batch = self.batch::<B::InnerBackend>(chunk);
            sum = sum + model.loss(&batch, &criterion).mul_scalar(model.items(&batch) as f64);
            items += model.items(&batch);
        }
        let sum: f64 = sum.into_scalar().elem();
        let bits_per_byte = (bytes > 0).then(|| sum / std::f64::consts::LN_2 / bytes as f64);
        Ok((sum / items.max(1) as f64, bits_per_byte))
    }

    /// Bytes of the targets that a generator writes; 0 for a search model.
    fn bytes(&self, examples: &[Example]) -> usize {
        let target = |example: &Example| -> usize {
            example.pair.target.iter().filter_map(|&token| self.token_bytes.get(token as usize)).sum()
        };
        examples.iter().map(target).sum()
    }

    /// The model that is validated and kept.
    fn kept(&self) -> Model<B::InnerBackend> {
        let model = self.model.valid();
        self.average.as_ref().map_or(model.clone(), |average| average.of(model))
    }

    fn elapsed(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    fn row(&self, split: &str, loss: f64, means: Option<Means>, bits_per_byte: Option<f64>) -> TrainingStep {
        let (elapsed, step) = (self.elapsed(), self.progress.step);
        TrainingStep {
            model: self.name.to_owned(),
            step,
            epoch: self.progress.epoch,
            split: split.to_owned(),
            loss,
            learning_rate: self.rate(),
            gradient_norm: means.map(|means| means.gradient_norm),
            tokens_per_second: means.map(|means| means.tokens_per_second),
            bits_per_byte: bits_per_byte.filter(|bits| bits.is_finite()),
            score: None,
            skipped: self.progress.skipped,
            memory_bytes: peak_memory_bytes(),
            elapsed_seconds: elapsed,
            seconds_left: elapsed / step.max(1) as f64 * self.steps.saturating_sub(step) as f64,
            parameters: self.parameters,
        }
    }

    fn snapshot_progress(&self) -> Progress {
        Progress { elapsed_seconds: self.elapsed(), ..self.progress.clone() }
    }

    fn snapshot(&self) -> Result<Files> {
        let model = save(&self.model.valid())?;
        let optimizer = self.optimizer.save()?;
        let mut files = Files::from([(MODEL.to_owned(), model.into()), (OPTIMIZER.to_owned(), optimizer.into())]);
        if let Some(best) = &self.best {
            files.insert(BEST.to_owned(), best.clone());
        }
        if let Some(average) = &self.average {
            average.save(&mut files)?;
        }
        Ok(files)
    }

    /// Goes on from a checkpoint, or stays as it was where that cannot be read.
    fn restore(&mut self, progress: Progress, files: &Files) -> Result<()> {
        let file = |name: &str| files.get(name).with_context(|| format!("{name} is missing"));
        let mut optimizer = Optimizer::new(self.config.optimizer, &self.model);
        optimizer.load(file(OPTIMIZER)?, self.device)?;
        let mut model = self.model.clone();
        load(&mut model, file(MODEL)?.to_vec())?;
        let mut average = self.config.average.map(Average::new);
        if let Some(average) = &mut average {
            average.load(files, self.device)?;
        }
        (self.model, self.optimizer, self.average) = (model, optimizer, average);
        self.best = files.get(BEST).cloned();
        self.before = progress.elapsed_seconds;
        self.progress = progress;
        Ok(())
    }
}
