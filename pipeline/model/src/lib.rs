//! burn modules, one file a model; losses; decoding; weights in and out.
//!
//! Shapes in docs: B rows of a batch, S source tokens, T target tokens, V vocabulary, E embedding, H hidden.

mod attention_lstm;
mod backend;
mod batch;
mod decoding;
mod losses;
mod lstm;
mod models;
mod nbow;
mod trained;
mod weights;

pub use attention_lstm::{AttentionLstm, AttentionLstmConfig};
pub use backend::{Cpu, CpuDevice, Device, TrainCpu};
#[cfg(feature = "cuda")]
pub use backend::{Cuda, CudaDevice, TrainCuda};
pub use batch::{Batch, Pair};
pub use decoding::{Decoded, beam, greedy, teacher_forced};
pub use losses::Loss;
pub use models::{Model, ModelCard, ModelConfig, Side, Task, Vocabularies};
pub use nbow::{Nbow, NbowConfig};
pub use trained::Trained;
pub use weights::{load, parameters, save};
