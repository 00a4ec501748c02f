//! A trained model, loaded from its artifact alone.

use anyhow::{Context as _, Result, bail};
use burn::tensor::backend::Backend;
use codepair_runtime::{Manifest, Store, config_error};
use codepair_schemas::DocumentField;
use codepair_tokenizer::Tokenizer;
use rayon::prelude::*;

use crate::{Decoding, Encoder, Generator, Model, ModelCard, Role, Side, joined, load};

/// A model with its tokenizers.
pub struct Trained<B: Backend> {
    /// What it is.
    pub card: ModelCard,
    /// Weights.
    pub model: Model<B>,
    /// Of what it reads.
    pub source: Tokenizer,
    /// Of what it writes or searches.
    pub target: Tokenizer,
}

impl<B: Backend> Trained<B> {
    /// Loads a model.
    ///
    /// # Errors
    /// Exit 3: a file is missing or damaged.
    pub fn load(store: &Store, manifest: &Manifest, device: &B::Device) -> Result<Self> {
        let read = |name: &str| manifest.read_named(store, &format!("models/{name}"));
        let card = ModelCard::of(store, manifest)?;
        let mut model = card.model.init(card.vocabularies, device);
        load(&mut model, read("model.safetensors")?.to_vec())?;
        let source = Tokenizer::from_json(&read("source_tokenizer.json")?)?;
        let target = Tokenizer::from_json(&read("target_tokenizer.json")?)?;
        Ok(Self { card, model, source, target })
    }

    /// Loads the model that `NAME@FINGERPRINT` names: stages before its training may use it, and nothing can move under them.
    ///
    /// # Errors
    /// Exit 2: the name has another form. Exit 3: no such model is in the store.
    pub fn pinned(store: &Store, name: &str, device: &B::Device) -> Result<Self> {
        Self::load(store, &pinned(store, name)?, device)
    }

    /// Tokens of what the model reads, cut as in training.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn read(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.source, &self.card.source, text)
    }

    /// Tokens of what the model searches, cut as in training.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn candidate(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.target, &self.card.target, text)
    }

    /// Unit vectors of texts, one a row.
    ///
    /// # Errors
    /// The model is no search model.
    pub fn vectors(&self, role: Role, texts: &[&str], device: &B::Device) -> Result<Vec<Vec<f32>>> {
        let tokens = texts.par_iter().map(|text| match role {
            Role::Query => self.read(text),
            Role::Document => self.candidate(text),
        });
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        self.finite(texts, self.encoder()?.encoded(role, &tokens, device))
    }

    /// Unit vectors of so many documents, one a row, by the text of each of their fields; a field without one is left out.
    ///
    /// # Errors
    /// The model is no search model.
    pub fn documents<'t>(
        &self,
        count: usize,
        text: impl Fn(usize, DocumentField) -> &'t str + Sync,
        device: &B::Device,
    ) -> Result<Vec<Vec<f32>>> {
        let side = &self.card.target;
        let (fields, between) = (side.document(), self.target.encode("\n")?);
        let tokens = (0..count).into_par_iter().map(|row| {
            let parts = fields.iter().map(|field| self.target.encode(text(row, *field)));
            let mut tokens = joined(parts.collect::<Result<Vec<_>, _>>()?, &between);
            self.target.fit(&mut tokens, side.max_tokens);
            Ok(tokens)
        });
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        let texts: Vec<&str> = (0..count).map(|row| text(row, side.column.into())).collect();
        self.finite(&texts, self.encoder()?.encoded(Role::Document, &tokens, device))
    }

    /// The generator that it is.
    ///
    /// # Errors
    /// It is none.
    pub fn generator(&self) -> Result<&Generator<B>> {
        match &self.model {
            Model::Generator(model) => Ok(model),
            Model::Encoder(_) => bail!("{} is no generator", self.card.name),
        }
    }

    /// The encoder that it is.
    ///
    /// # Errors
    /// It is none.
    pub fn encoder(&self) -> Result<&Encoder<B>> {
        match &self.model {
            Model::Encoder(model) => Ok(model),
            Model::Generator(_) => bail!("{} is no search model", self.card.name),
        }
    }

    /// How it writes: as long as the targets that it learned from.
    #[must_use]
    pub fn decoding(&self) -> Decoding {
        Decoding { special: self.card.special, length: self.card.target.max_tokens }
    }

    /// Vectors that are numbers: others would compare with nothing, and be ranked anywhere.
    fn finite(&self, texts: &[&str], vectors: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        let broken = vectors.iter().position(|vector| vector.iter().any(|x| !x.is_finite()));
        let Some(at) = broken else { return Ok(vectors) };
        let begins: String = texts[at].chars().take(60).collect();
        bail!("{} gives a vector that is no number, of the text that begins {begins:?}", self.card.name)
    }
}

/// The manifest of the model that `NAME@FINGERPRINT` names.
///
/// # Errors
/// Exit 2: the name has another form. Exit 3: no such model is in the store.
pub fn pinned(store: &Store, name: &str) -> Result<Manifest> {
    let (step, fingerprint) = name.split_once('@').ok_or_else(|| {
        config_error(format!("{name:?} is no pinned model: write NAME@FINGERPRINT, as codepair status says them"))
    })?;
    Manifest::find_short(store, &format!("train:{step}"), fingerprint).with_context(|| format!("the model {name}"))
}

fn encode(tokenizer: &Tokenizer, side: &Side, text: &str) -> Result<Vec<u32>> {
    let mut tokens = tokenizer.encode(text)?;
    tokenizer.fit(&mut tokens, side.max_tokens);
    Ok(tokens)
}
