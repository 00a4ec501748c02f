//! burn modules, one file a model, in two families; losses; decoding; weights in and out.
//!
//! Shapes in docs: B rows of a batch, S source tokens, T target tokens, V vocabulary, E embedding, H hidden, h heads.

mod backend;
mod batch;
mod card;
mod family;

// Their lists make macros, which what comes behind them can use.
#[macro_use]
mod encoders;
#[macro_use]
mod generators;

mod decoding;
mod layers;
mod losses;
mod models;
mod pretrained;
#[cfg(test)]
mod suite;
mod trained;
mod weights;

pub use backend::{Cpu, CpuDevice, Device, TrainCpu, is_eager};
#[cfg(feature = "cuda")]
pub use backend::{Cuda, CudaDevice, TrainCuda};
pub use batch::{Batch, Pair, Tokens};
pub use card::{ModelCard, Side, Vocabularies, joined};
pub use decoding::{Decoded, Decoding};
pub use encoders::{Encode, Encoder, EncoderConfig, NbowConfig, Role};
pub use generators::{
    AttentionLstmConfig, Generate, Generator, GeneratorConfig, LstmConfig, PairedConfig, Positions, RnnConfig, Step,
    T5Config, TransformerConfig,
};
pub use layers::t5::T5Sizes;
pub use losses::{ClassWeights, CosineHinge, Criterion, CrossEntropy, Loss, Softmax, short};
pub use models::{Model, ModelConfig, Task};
pub use pretrained::{Folder, Pretrained};
pub use trained::{Trained, pinned};
pub use weights::{Named, ParameterKind, load, named, parameters, save};
