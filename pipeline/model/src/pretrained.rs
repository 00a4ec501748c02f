//! Weights that other tools made: folders of Hugging Face's `config.json` and safetensors, in one file or in shards.
//!
//! A file that is not there is a missing input; one that is damaged, or says what is not known here, is a wrong config: nothing that
//! was made of an older state stands in for it.

mod t5;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use codepair_runtime::{config_error, file_digest, files_digest, input_error};
use codepair_tokenizer::Special;
use serde_json::Value;

use crate::weights::named;
use crate::{GeneratorConfig, Model, ModelConfig, Named, PairedConfig, ParameterKind, Vocabularies};

const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";

/// What a model begins with in place of fresh weights.
#[derive(Clone, Debug)]
pub enum Pretrained {
    /// All of a model.
    Whole(Folder),
    /// The encoder of one and the decoder of another.
    Halves {
        /// What reads.
        encoder: Folder,
        /// What writes.
        decoder: Folder,
    },
}

/// A folder of pretrained files.
#[derive(Clone, Debug)]
pub struct Folder {
    place: PathBuf,
    config: Value,
    /// Names of the files that hold weights.
    weights: BTreeSet<String>,
}

/// The half of a model that a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Encoder,
    Decoder,
}

impl Folder {
    /// Reads what the folder holds; no weights yet.
    ///
    /// # Errors
    /// Exit 3: a file is missing. Exit 2: it is not what its name says, or of a model that is not known.
    pub fn open(place: &Path) -> Result<Self> {
        let json = |name: &str| -> Result<Value> {
            let path = place.join(name);
            let text = std::fs::read(&path).map_err(|error| {
                input_error(format!(
                    "{}: {error}; a folder of pretrained files has a config.json, and safetensors beside it",
                    path.display()
                ))
            })?;
            serde_json::from_slice(&text).map_err(|error| config_error(format!("{}: {error}", path.display())))
        };
        let config = json("config.json")?;
        let weights = if place.join(INDEX).exists() {
            let index = json(INDEX)?;
            let files = index["weight_map"].as_object().into_iter().flatten().map(|(_, file)| file);
            files.filter_map(|file| file.as_str().map(str::to_owned)).collect()
        } else {
            BTreeSet::from([WHOLE.to_owned()])
        };
        if let Some(outside) = weights.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(config_error(format!("{}: {outside} is no file of this folder", place.join(INDEX).display())));
        }
        let folder = Self { place: place.to_owned(), config, weights };
        if let Some(missing) = folder.weights.iter().find(|name| !place.join(name).exists()) {
            return Err(input_error(format!(
                "{} is missing; where the weights are in a pytorch_model.bin, transformers writes safetensors with save_pretrained",
                place.join(missing).display()
            )));
        }
        match folder.config["model_type"].as_str() {
            Some("t5") => Ok(folder),
            other => Err(config_error(format!(
                "{}: model_type is {}; what can be read is t5",
                place.join("config.json").display(),
                other.map_or("missing".to_owned(), |kind| format!("{kind:?}"))
            ))),
        }
    }

    /// The digest of its config and weights.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digest(&self) -> Result<String> {
        let names = ["config.json".to_owned()].into_iter().chain(self.weights.iter().cloned());
        let files = names.map(|name| Ok((name.clone(), file_digest(&self.place.join(name))?)));
        Ok(files_digest(&files.collect::<Result<BTreeMap<_, _>>>()?))
    }

    /// A whole number of its config.
    fn number(&self, key: &str) -> Result<usize> {
        self.number_or(key, None)
    }

    fn number_or(&self, key: &str, otherwise: Option<usize>) -> Result<usize> {
        let value = &self.config[key];
        let missing = otherwise.filter(|_| value.is_null());
        value.as_u64().map(|number| number as usize).or(missing).ok_or_else(|| {
            config_error(format!("{}: {key} = {value} is no whole number", self.place.join("config.json").display()))
        })
    }

    /// Tokens that it has embeddings of.
    fn vocabulary(&self) -> Result<usize> {
        self.number("vocab_size")
    }

    /// A number of its config that need not be whole.
    fn float_or(&self, key: &str, otherwise: f64) -> Result<f64> {
        match &self.config[key] {
            Value::Null => Ok(otherwise),
            value => value.as_f64().ok_or_else(|| {
                config_error(format!("{}: {key} = {value} is no number", self.place.join("config.json").display()))
            }),
        }
    }

    /// The tokens that begin and end what it writes.
    fn special(&self) -> Result<Special> {
        // Some configs have several ends.
        let several = self.config["eos_token_id"][0].as_u64().map(|id| id as usize);
        let end = several.map_or_else(|| self.number_or("eos_token_id", Some(1)), Ok)?;
        let begin = self.number_or("decoder_start_token_id", Some(self.number_or("pad_token_id", Some(0))?))?;
        let tokens = self.vocabulary()?;
        for (key, id) in [("eos_token_id", end), ("decoder_start_token_id", begin)] {
            if id >= tokens {
                let place = self.place.join("config.json");
                return Err(config_error(format!("{}: {key} = {id} is none of its {tokens} tokens", place.display())));
            }
        }
        Ok(Special { begin: begin as u32, end: end as u32 })
    }

    /// The shapes of all its tensors, by name.
    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut shapes = BTreeMap::new();
        for file in &self.weights {
            shapes.extend(tensors::shapes(&self.place.join(file))?);
        }
        Ok(shapes)
    }

    /// Its tokenizer, where one lies in it.
    fn tokenizer(&self) -> Option<Vec<u8>> {
        std::fs::read(self.place.join("tokenizer.json")).ok()
    }

    /// All its tensors, in f32.
    fn tensors(&self) -> Result<BTreeMap<String, TensorData>> {
        let mut all = BTreeMap::new();
        for file in &self.weights {
            for (name, tensor) in tensors::read(&self.place.join(file))? {
                if all.insert(name.clone(), tensor).is_some() {
                    return Err(config_error(format!("{}: {name} is in two files", self.place.display())));
                }
            }
        }
        Ok(all)
    }
}

impl Pretrained {
    /// The folders, by the keys that name them.
    fn folders(&self) -> Vec<(&'static str, &Folder)> {
        match self {
            Self::Whole(folder) => vec![("init", folder)],
            Self::Halves { encoder, decoder } => vec![("init.encoder", encoder), ("init.decoder", decoder)],
        }
    }

    /// Digests of the folders, by the keys that name them.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digests(&self) -> Result<BTreeMap<String, String>> {
        self.folders().into_iter().map(|(key, folder)| Ok((key.to_owned(), folder.digest()?))).collect()
    }

    /// The model that its weights are of, as far as their shapes tell: sizes that are not theirs are found before anything is as large.
    ///
    /// # Errors
    /// Exit 2: its config lacks something, has something that is not known here, or is not that of its weights.
    pub fn model(&self) -> Result<ModelConfig> {
        Ok(ModelConfig::Generator(match self {
            Self::Whole(folder) => GeneratorConfig::T5(t5::config(folder, &[Half::Encoder, Half::Decoder])?),
            Self::Halves { encoder, decoder } => {
                let reading = t5::config(encoder, &[Half::Encoder])?;
                let writing = t5::config(decoder, &[Half::Decoder])?;
                GeneratorConfig::Paired(PairedConfig {
                    encoder: reading.half(reading.encoder_layers),
                    decoder: writing.half(writing.decoder_layers),
                    tied: writing.tied,
                    scaled: writing.scaled,
                    dropout: writing.dropout,
                })
            }
        }))
    }

    /// Sizes of its vocabularies, which may be larger than those of its tokenizers.
    ///
    /// # Errors
    /// Exit 2: its config lacks them.
    pub fn vocabularies(&self) -> Result<Vocabularies> {
        Ok(Vocabularies {
            source: self.half(Half::Encoder).vocabulary()?,
            target: self.half(Half::Decoder).vocabulary()?,
        })
    }

    /// The tokens that begin and end what it writes.
    ///
    /// # Errors
    /// Exit 2: its config has something else in their place.
    pub fn special(&self) -> Result<Special> {
        self.half(Half::Decoder).special()
    }

    /// The tokenizers of what it reads and what it writes, where they lie in its folders.
    #[must_use]
    pub fn tokenizers(&self) -> [Option<Vec<u8>>; 2] {
        [self.half(Half::Encoder).tokenizer(), self.half(Half::Decoder).tokenizer()]
    }

    fn half(&self, half: Half) -> &Folder {
        match (self, half) {
            (Self::Whole(folder), _)
            | (Self::Halves { encoder: folder, .. }, Half::Encoder)
            | (Self::Halves { decoder: folder, .. }, Half::Decoder) => folder,
        }
    }

    /// A model with these weights; what is in none of the folders, the projection between two halves, stays as it is.
    ///
    /// # Errors
    /// Exit 2: a file is damaged, or a tensor is missing, of another shape, or not known; the text names it.
    pub fn fill<B: Backend>(&self, model: Model<B>) -> Result<Model<B>> {
        let is_whole = matches!(self, Self::Whole(_));
        let mut sides = BTreeMap::new();
        for (key, folder) in self.folders() {
            sides.insert(key, folder.tensors().with_context(|| format!("{key} = {}", folder.place.display()))?);
        }
        let names = named(&model);
        let gated = |half: &str| names.values().any(|own| own.name.starts_with(half) && own.name.contains(".gate."));
        let key = |half| match (is_whole, half) {
            (true, _) => "init",
            (false, Half::Encoder) => "init.encoder",
            (false, Half::Decoder) => "init.decoder",
        };
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for (id, own) in &names {
            let Some((half, theirs)) = t5::name(&own.name, &gated) else { continue };
            let tensors = sides.get_mut(key(half)).context("a half has no folder")?;
            let tensor = t5::aliases(&theirs).find_map(|name| tensors.remove(name));
            match tensor {
                Some(tensor) => drop(found.insert(*id, (theirs, own.clone(), tensor))),
                None => missing.push(theirs),
            }
        }
        // What a half leaves out is the other's.
        let is_left_out = |side: &str, name: &str| match side {
            "init.encoder" => name.starts_with("decoder."),
            "init.decoder" => name.starts_with("encoder."),
            _ => false,
        };
        let unknown = sides.iter().flat_map(|(side, tensors)| tensors.keys().map(move |name| (*side, name)));
        let mut unknown = unknown.filter(|(side, name)| !t5::is_alias(name) && !is_left_out(side, name)).peekable();
        if let (Some(first), known) = (missing.first(), unknown.peek()) {
            let count = missing.len();
            let besides =
                known.map_or_else(String::new, |(_, name)| format!("; in their place are others, such as {name}"));
            return Err(config_error(format!("{count} tensors are missing, such as {first}{besides}")));
        }
        if let Some((side, name)) = unknown.next() {
            return Err(config_error(format!(
                "{side}: the model has no {name}; is config.json that of these weights?"
            )));
        }
        let mut fill = Fill { found, fault: None };
        let model = model.map(&mut fill);
        fill.fault.map_or(Ok(model), |fault| Err(config_error(fault)))
    }
}

/// Puts tensors into a model, by the ids of its parameters.
struct Fill {
    found: BTreeMap<u64, (String, Named, TensorData)>,
    fault: Option<String>,
}

impl<B: Backend> ModuleMapper<B> for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some((theirs, own, data)) = self.found.remove(&param.id.val()) else { return param };
        let (id, tensor, mapper) = param.consume();
        // Linear maps are stored the other way round there.
        let is_turned = own.kind == ParameterKind::Matrix;
        let mut wanted = tensor.dims().to_vec();
        if is_turned {
            wanted.reverse();
        }
        if data.shape.to_vec() != wanted {
            let fault =
                format!("the tensor {theirs} has the shape {:?}, and the model's is {wanted:?}", data.shape.to_vec());
            self.fault.get_or_insert(fault);
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let read = Tensor::<B, D>::from_data(data, &tensor.device());
        let read = if is_turned { read.swap_dims(0, 1) } else { read };
        Param::from_mapped_value(id, read.set_require_grad(tensor.is_require_grad()), mapper)
    }
}
