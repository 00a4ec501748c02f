//! What makes a list of models of one line a model.

/// Defines a family: the enum of its configs (`kind` says which), the enum of its modules, and what holds for all of them. A line
/// is `Kind: Config => Module`; the config has `check`, `one_vocabulary`, and the module `new(&config, vocabularies, device)`.
/// `$` makes the macro `$each`, which does something with the module, whichever it is.
macro_rules! family {
    (
        $dollar:tt $each:ident, $Config:ident, $Module:ident:
        $( $(#[doc = $doc:literal])+ $Kind:ident: $Settings:ty => $Model:ty ),+ $(,)?
    ) => {
        #[doc = concat!("`[train.NAME.model]` of a [`", stringify!($Module), "`].")]
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum $Config {
            $( $(#[doc = $doc])+ $Kind($Settings) ),+
        }

        #[doc = concat!("A model of any kind that [`", stringify!($Config), "`] lists.")]
        #[derive(burn::module::Module, Debug)]
        pub enum $Module<B: burn::tensor::backend::Backend> {
            $( $(#[doc = $doc])+ $Kind($Model) ),+
        }

        impl $Config {
            /// The same kind with its defaults.
            #[must_use]
            pub fn default_of_kind(&self) -> Self {
                match self { $( Self::$Kind(_) => Self::$Kind(<$Settings>::default()) ),+ }
            }

            /// Every kind with its defaults.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![ $( Self::$Kind(<$Settings>::default()) ),+ ]
            }

            /// That its sizes go together.
            ///
            /// # Errors
            /// The key, and why not.
            pub fn check(&self) -> Result<(), String> {
                match self { $( Self::$Kind(config) => config.check() ),+ }
            }

            /// The key because of which source and target must have one tokenizer.
            #[must_use]
            pub fn one_vocabulary(&self) -> Option<&'static str> {
                match self { $( Self::$Kind(config) => config.one_vocabulary() ),+ }
            }

            /// A model with fresh weights; seed the backend before.
            pub fn init<B: burn::tensor::backend::Backend>(
                &self,
                vocabularies: crate::Vocabularies,
                device: &B::Device,
            ) -> $Module<B> {
                match self { $( Self::$Kind(config) => $Module::$Kind(<$Model>::new(config, vocabularies, device)) ),+ }
            }
        }

        macro_rules! $each {
            ($dollar family:expr, $dollar model:ident => $dollar call:expr) => {
                match $dollar family { $( $Module::$Kind($dollar model) => $dollar call ),+ }
            };
        }
    };
}

pub(crate) use family;
