//! The kinds of generators: one file a kind, one line in the list.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Config, Context, of_kind, overrides, schema_of_kinds, take_kind};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::openai::Forecast;
use crate::rows::Made;

/// A kind of generator.
pub(crate) trait GeneratorKind: Serialize + Default {
    /// Digests of the files it reads, such as prompts, by name.
    fn files(&self, config: &Config) -> Result<BTreeMap<String, String>>;
    /// Makes its pairs or vectors, in the order of the parents.
    fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()>;
    /// What it would cost; nothing where nobody is asked.
    fn forecast(&self, _context: &Context, _name: &str) -> Result<Option<Forecast>> {
        Ok(None)
    }
    /// What it spent in all runs so far, as notes; nothing where nobody is asked.
    fn spent(&self, _context: &Context, _name: &str) -> Result<Vec<(&'static str, Value)>> {
        Ok(Vec::new())
    }
    /// Whether it asks a server, which may cost money.
    fn asks(&self) -> bool {
        false
    }
    /// Whether it makes vectors, which others may read.
    fn makes_vectors(&self) -> bool {
        false
    }
    /// The generator whose vectors it reads, where it reads some.
    fn reads_vectors_of(&self) -> Option<&str> {
        None
    }
    /// Whether it reads queries.
    fn reads_queries(&self) -> bool {
        false
    }
}

macro_rules! kinds {
    ($($kind:ident($module:ident),)*) => {
        $(mod $module;)*

        /// `[synth.NAME]`; `kind` says which.
        #[derive(Clone, Debug, Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[allow(clippy::large_enum_variant, reason = "there is one a table of the config")]
        pub enum Generator {
            $(#[doc = concat!("`kind = \"", stringify!($module), "\"`.")] $kind($module::$kind),)*
        }

        impl<'de> Deserialize<'de> for Generator {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (kind, table) = take_kind(deserializer, &[$(stringify!($module)),*])?;
                match kind.as_str() {
                    $(stringify!($module) => of_kind(table).map(Self::$kind),)*
                    other => Err(serde::de::Error::custom(format!("unknown kind {other}"))),
                }
            }
        }

        impl schemars::JsonSchema for Generator {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!(Generator).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schema_of_kinds(vec![$((stringify!($module), <$module::$kind>::json_schema(generator))),*])
            }
        }

        impl Generator {
            fn default_of_kind(&self) -> Self {
                match self { $(Self::$kind(_) => Self::$kind($module::$kind::default())),* }
            }
            pub(crate) fn files(&self, config: &Config) -> Result<BTreeMap<String, String>> {
                match self { $(Self::$kind(kind) => kind.files(config)),* }
            }
            pub(crate) fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
                match self { $(Self::$kind(kind) => kind.generate(context, name, made)),* }
            }
            pub(crate) fn forecast(&self, context: &Context, name: &str) -> Result<Option<Forecast>> {
                match self { $(Self::$kind(kind) => kind.forecast(context, name)),* }
            }
            pub(crate) fn spent(&self, context: &Context, name: &str) -> Result<Vec<(&'static str, Value)>> {
                match self { $(Self::$kind(kind) => kind.spent(context, name)),* }
            }
            pub(crate) fn asks(&self) -> bool {
                match self { $(Self::$kind(kind) => kind.asks()),* }
            }
            pub(crate) fn makes_vectors(&self) -> bool {
                match self { $(Self::$kind(kind) => kind.makes_vectors()),* }
            }
            pub(crate) fn reads_vectors_of(&self) -> Option<&str> {
                match self { $(Self::$kind(kind) => kind.reads_vectors_of()),* }
            }
            pub(crate) fn reads_queries(&self) -> bool {
                match self { $(Self::$kind(kind) => kind.reads_queries()),* }
            }
        }
    };
}

kinds! {
    Embed(embed),
    Mined(mined),
    Offline(offline),
    Openai(openai),
}

impl Generator {
    /// The resolved values that decide about the output, and those of them that differ from the defaults.
    pub(crate) fn values(&self) -> Result<(Value, Value)> {
        let value = serde_json::to_value(self)?;
        let changed = overrides(&value, &serde_json::to_value(self.default_of_kind())?);
        Ok((value, changed))
    }
}
