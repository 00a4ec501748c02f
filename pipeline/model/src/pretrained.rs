//! Weights that other tools made: folders of Hugging Face's `config.json` and safetensors, in one file or in shards.

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
use codepair_runtime::{file_digest, files_digest, input_error};
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
    /// Exit 3: a file is missing, or is not what its name says.
    pub fn open(place: &Path) -> Result<Self> {
        let json = |name: &str| -> Result<Value> {
            let path = place.join(name);
            let text = std::fs::read(&path).map_err(|error| {
                input_error(format!(
                    "{}: {error}; a folder of pretrained files has a config.json, and safetensors beside it",
                    path.display()
                ))
            })?;
            serde_json::from_slice(&text).map_err(|error| input_error(format!("{}: {error}", path.display())))
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
            return Err(input_error(format!("{}: {outside} is no file of this folder", place.join(INDEX).display())));
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
            other => Err(input_error(format!(
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
            input_error(format!("{}: {key} = {value} is no whole number", self.place.join("config.json").display()))
        })
    }

    /// Tokens that it has embeddings of.
    fn vocabulary(&self) -> Result<usize> {
        self.number("vocab_size")
    }

    /// The tokens that begin and end what it writes.
    fn special(&self) -> Result<Special> {
        // Some configs have several ends.
        let end = &self.config["eos_token_id"];
        let end = end.as_u64().or_else(|| end[0].as_u64()).unwrap_or(1);
        let begin = self.number_or("decoder_start_token_id", Some(self.number_or("pad_token_id", Some(0))?))?;
        Ok(Special { begin: begin as u32, end: end as u32 })
    }

    /// The names of all its tensors.
    fn names(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for file in &self.weights {
            names.extend(tensors::names(&self.place.join(file))?);
        }
        Ok(names)
    }

    /// All its tensors, in f32.
    fn tensors(&self) -> Result<BTreeMap<String, TensorData>> {
        let mut all = BTreeMap::new();
        for file in &self.weights {
            for (name, tensor) in tensors::read(&self.place.join(file))? {
                if all.insert(name.clone(), tensor).is_some() {
                    return Err(input_error(format!("{}: {name} is in two files", self.place.display())));
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

    /// The model that its weights are of.
    ///
    /// # Errors
    /// Exit 3: its config lacks something, or has something that is not known here.
    pub fn model(&self) -> Result<ModelConfig> {
        Ok(ModelConfig::Generator(match self {
            Self::Whole(folder) => GeneratorConfig::T5(t5::config(folder)?),
            Self::Halves { encoder, decoder } => {
                let (reading, writing) = (t5::config(encoder)?, t5::config(decoder)?);
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
    /// Exit 3: its config lacks them.
    pub fn vocabularies(&self) -> Result<Vocabularies> {
        Ok(Vocabularies {
            source: self.half(Half::Encoder).vocabulary()?,
            target: self.half(Half::Decoder).vocabulary()?,
        })
    }

    /// The tokens that begin and end what it writes.
    ///
    /// # Errors
    /// Exit 3: its config has something else in their place.
    pub fn special(&self) -> Result<Special> {
        self.half(Half::Decoder).special()
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
    /// Exit 3: a file is damaged, or a tensor is missing, of another shape, or not known; the text names it.
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
        let mut found = BTreeMap::new();
        for (id, own) in &names {
            let Some((half, theirs)) = t5::name(&own.name, &gated) else { continue };
            let tensors = sides.get_mut(key(half)).context("a half has no folder")?;
            let tensor = t5::aliases(&theirs).find_map(|name| tensors.remove(name)).ok_or_else(|| {
                input_error(format!("{}: the tensor {theirs} is missing", self.half(half).place.display()))
            })?;
            found.insert(*id, (theirs, own.clone(), tensor));
        }
        for (side, tensors) in &sides {
            // What a half leaves out is the other's.
            let is_left_out = |name: &str| match *side {
                "init.encoder" => name.starts_with("decoder.") || name == "lm_head.weight",
                "init.decoder" => name.starts_with("encoder."),
                _ => false,
            };
            let unknown = tensors.keys().find(|name| !t5::is_alias(name) && !is_left_out(name));
            if let Some(name) = unknown {
                return Err(input_error(format!(
                    "{side}: the model has no {name}; is config.json that of these weights?"
                )));
            }
        }
        let mut fill = Fill { found, fault: None };
        let model = model.map(&mut fill);
        fill.fault.map_or(Ok(model), |fault| Err(input_error(fault)))
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
