//! The logits of a generator, for whoever wants to compare them: `logits FOLDER < BATCH > LOGITS`.
//!
//! The folder is that of a trained model; the batch is JSON, `{ "source": [[ids]], "target": [[framed ids]] }`; the logits come as
//! little-endian f32, [B, T − 1, V]. `bench/models/parity.py` holds them to PyTorch's.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use codepair_model::{Batch, Cpu, CpuDevice, Model, ModelCard, Pair, load};

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("name the folder of a trained model")?);
    let read = |name: &str| std::fs::read(folder.join(name)).with_context(|| folder.join(name).display().to_string());
    let card: ModelCard = serde_json::from_slice(&read("config.json")?)?;
    let device = CpuDevice::default();
    let mut model: Model<Cpu> = card.model.init(card.vocabularies, &device);
    load(&mut model, read("model.safetensors")?)?;
    let Model::Generator(model) = model else { bail!("{} is no generator", card.name) };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let batch: serde_json::Value = serde_json::from_str(&text)?;
    let rows = |side: &str| serde_json::from_value::<Vec<Vec<u32>>>(batch[side].clone());
    let pairs: Vec<Pair> =
        rows("source")?.into_iter().zip(rows("target")?).map(|(source, target)| Pair { source, target }).collect();
    let logits: Vec<f32> = model.logits(&Batch::new(&pairs, &[], &device)).into_data().iter().collect();
    std::io::stdout().write_all(&logits.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
    Ok(())
}
