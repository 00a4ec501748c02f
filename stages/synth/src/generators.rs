//! The kinds of generators: one file a kind, one line in the list.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Config, Context, overrides};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rows::{Made, Parent};

/// A kind of generator.
pub(crate) trait Kind: Serialize + Default {
    /// Digests of the files it reads, such as prompts, by name.
    fn files(&self, config: &Config) -> Result<BTreeMap<String, String>>;
    /// Makes pairs from the parents, in their order.
    fn generate(&self, context: &Context, name: &str, parents: &[Parent], made: &mut Made) -> Result<()>;
}

macro_rules! kinds {
    ($($kind:ident($module:ident),)*) => {
        $(mod $module;)*

        /// `[synth.NAME]`; `kind` says which.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[allow(clippy::large_enum_variant, reason = "there is one a table of the config")]
        pub enum Generator {
            $(#[doc = concat!("`kind = \"", stringify!($module), "\"`.")] $kind($module::$kind),)*
        }

        impl Generator {
            fn default_of_kind(&self) -> Self {
                match self { $(Self::$kind(_) => Self::$kind($module::$kind::default())),* }
            }
            pub(crate) fn files(&self, config: &Config) -> Result<BTreeMap<String, String>> {
                match self { $(Self::$kind(kind) => kind.files(config)),* }
            }
            pub(crate) fn generate(&self, context: &Context, name: &str, parents: &[Parent], made: &mut Made) -> Result<()> {
                match self { $(Self::$kind(kind) => kind.generate(context, name, parents, made)),* }
            }
        }
    };
}

kinds! {
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
